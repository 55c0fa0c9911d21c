"""Word lists for values to copy and for subjects that nano does not know."""

NAMES = """Ada Alan Alice Amir Ana Andrea Anna Anton Aria Arthur Aisha Bea Ben Bella Boris Bruno Carl Carla Carmen Cara
Chen Chloe Clara Cleo Dan Dana Daniel David Deepa Diego Dora Edgar Ela Elena Eli Ella Emil Emma Eric Erik Eva Felix
Fatima Fiona Frank Freya George Gina Grace Greta Gus Hana Hannah Harry Hassan Heidi Helen Henry Hugo Ida Ines Ivan Iris
Isaac Jack Jakob James Jan Jana Jane Jonas Julia Jun Kai Karen Karl Kate Kenji Kim Kira Lara Lars Laura Lea Leo Liam
Lena Lily Lin Linus Lisa Louis Lucy Luis Luna Maja Marco Maria Marie Mark Marta Max Maya Mei Mia Mila Milo Mira Mohammed
Nadia Nico Nina Noah Nora Olga Olivia Omar Oscar Otto Paul Pablo Paula Peter Petra Pia Quinn Rafael Raj Ravi Rosa Rita
Robert Robin Ruth Sam Sara Sarah Sergey Sofia Stefan Sven Tara Theo Tim Tina Tom Uma Vera Victor Viktor Wanda Will Yara
Yuki Yusuf Zoe Margaret Benjamin Charlotte Elizabeth Alexander Katherine Matthew Natasha Samuel Thomas Vincent""".split()
CITIES = """Paris London Berlin Rome Madrid Vienna Prague Warsaw Lisbon Dublin Athens Helsinki Stockholm Copenhagen Zurich
Geneva Munich Hamburg Milan Naples Turin Venice Florence Porto Seville Lyon Nice Brussels Amsterdam Tokyo Kyoto Osaka
Seoul Beijing Shanghai Delhi Mumbai Bangkok Hanoi Jakarta Manila Sydney Perth Cairo Lagos Nairobi Accra Tunis Toronto
Montreal Boston Chicago Denver Seattle Austin Miami Havana Bogota Quito Santiago Cordoba Riga Tallinn Vilnius Budapest
Zagreb Sofia Krakow Bergen Malmo Leeds York Bristol Glasgow Kabul Ankara Izmir Tehran Baku Tbilisi""".split()
COLOURS = """red blue green yellow orange purple pink brown black white grey violet indigo turquoise magenta cyan gold
silver crimson scarlet beige maroon olive navy lime amber coral""".split()
FOODS = """pizza pasta rice bread cheese sushi curry salad noodles pancakes chocolate apples bananas cherries mango soup
lasagna tacos dumplings risotto paella falafel hummus olives tomatoes potatoes ice cake cookies waffles honey""".split()
ANIMALS = ["dog", "cat", "horse", "parrot", "rabbit", "hamster", "turtle", "goat", "donkey", "pony", "snake", "bird"]
PETS = """Rex Bello Luna Max Milo Bella Coco Simba Nala Oreo Ginger Shadow Pepper Lucky Daisy Sunny Biscuit Socks Tiger
Whiskers Ziggy Pixel Mango Toto Fluffy Buster Rocky Spot Snowy Mimi Felix Kiki Loki Odin Thor Nemo Pongo""".split()
JOBS = """teacher doctor baker carpenter nurse pilot farmer lawyer painter writer engineer student cook gardener plumber
singer musician mechanic driver tailor librarian chemist physicist programmer designer sailor""".split()
WORDS = """apple river stone window garden forest candle mirror bridge castle hammer pencil silver thunder meadow ocean
pepper ribbon saddle tunnel velvet winter yellow zebra anchor basket cactus dragon engine feather guitar helmet island
jacket kettle ladder magnet needle orange parrot quartz rocket shadow temple umbrella violin walnut tulip spoon cloud
blanket button carpet copper cotton eagle falcon flower glacier harbor hedgehog lemon lizard marble monkey mountain
muffin nutmeg onion otter panda piano pirate planet pumpkin puzzle rabbit raven salmon sparrow spider squirrel sunset
tiger turtle valley wagon whale willow wizard acorn""".split()
SESSION_NAMES = """work today notes demo test chat1 project home mychat draft ideas monday friday plan7 bugfix lesson
research novel recipe travel thesis alpha beta gamma first second final old new talk session1 session2 evening""".split()
FILES = """notes.txt question.txt prompt.txt readme.md story.txt main.rs report.md letter.txt todo.txt input.txt draft.md
data.csv code.py essay.txt mail.txt log.txt spec.md chapter1.txt""".split()
MODEL_FILES = """model.gguf flash.gguf pro.gguf deepseek.gguf big.gguf my-model.gguf nano.gguf v4.gguf DeepSeek-V4.gguf
q2.gguf weights.gguf small.gguf flash-q4.gguf""".split()

PLACES = """France Germany Italy Spain Portugal Poland Norway Sweden Finland Denmark Japan China India Brazil Peru Chile
Argentina Canada Mexico Kenya Egypt Morocco Nigeria Ethiopia Turkey Iran Iraq Israel Greece Austria Hungary Romania
Bulgaria Ukraine Russia Vietnam Thailand Indonesia Australia Iceland Ireland Scotland Wales Belgium Switzerland Cuba
Jamaica Bolivia Ecuador Colombia Venezuela Uruguay Paraguay Nepal Pakistan Bangladesh Sri Lanka Texas California Alaska
Florida Europe Asia Africa America Antarctica""".split()
PEOPLE = """Einstein Newton Shakespeare Mozart Beethoven Bach Goethe Picasso Darwin Galileo Tesla Edison Caesar Cleopatra
Aristotle Plato Socrates Lincoln Washington Churchill Gandhi Mandela Curie Turing Lovelace Gauss Euler Kant Nietzsche
Dante Homer Columbus Magellan Michelangelo Rembrandt Dickens Tolstoy Chopin Vivaldi Elvis Madonna Hitchcock Spielberg
Messi Ronaldo Federer Bolt Marx Freud Hegel Voltaire Rousseau""".split()
THINGS = """love happiness money war peace history music poetry art football tennis chess cooking weather politics
religion philosophy biology chemistry physics astronomy geology economics medicine law gravity electricity magnetism
evolution relativity photosynthesis DNA atoms electrons black_holes galaxies planets stars the_moon the_sun Mars Jupiter
Saturn comets dinosaurs whales dolphins elephants tigers lions bears wolves foxes eagles sharks spiders bees ants trees
flowers roses mountains rivers oceans volcanoes earthquakes storms rain snow clouds climate_change energy oil gold
silver diamonds iron steel glass paper books films television radio the_internet computers phones robots cars trains
planes ships bicycles rockets satellites bridges houses castles pyramids churches schools universities hospitals banks
taxes insurance stocks bitcoin inflation marriage children babies dogs cats horses fish birds bread cheese wine beer
coffee tea milk sugar salt pepper pizza pasta sushi soup chocolate cake fruit vegetables vitamins sleep dreams sport
yoga running swimming skiing dancing singing painting drawing photography gardening fishing hiking travel holidays
Christmas Easter birthdays weddings fashion shoes clothes hats watches toys games cards puzzles magic ghosts vampires
dragons unicorns Python Java JavaScript Linux Windows Excel Word Photoshop HTML CSS SQL databases algorithms recursion
prime_numbers geometry algebra calculus statistics probability logic infinity time space truth beauty justice freedom
democracy monarchy communism capitalism slavery the_Renaissance the_Middle_Ages the_Roman_Empire ancient_Egypt
World_War_II the_Cold_War the_French_Revolution the_Industrial_Revolution vaccines viruses bacteria cancer diabetes
the_brain the_heart the_liver blood bones muscles skin eyes ears memory_loss pain stress fear anger""".split()
ACTIVITIES = """bake a cake|cook rice|boil an egg|make coffee|brew beer|grill fish|fry potatoes|make pizza dough|repair a bike
|fix a tap|paint a wall|build a house|build a boat|plant a tree|grow tomatoes|train a dog|feed a cat|ride a horse
|learn French|learn to swim|learn the piano|play chess|play the guitar|write a novel|write a letter|write an essay
|get a job|find a flat|buy a car|sell a house|rent a room|save money|save water|save energy|save the planet|save a life
|load a truck|load a dishwasher|load a gun|quit smoking|quit my job|stop smoking|stop snoring|stop a nosebleed
|stop the rain|start a business|start a fire|start a car|change a tyre|change my diet|change a light bulb|set a table
|set an alarm|set up a tent|lose weight|gain muscle|run a marathon|climb a mountain|fly a plane|drive a car|park a car
|tie a tie|tie a knot|sew a button|knit a scarf|iron a shirt|wash wool|clean windows|clean an oven|remove a stain
|open a bottle|open a bank account|open a shop|close a deal|read music|read faster|read a map|sleep better|wake up early
|meditate|relax|make friends|find love|ask for a raise|pay taxes|invest money|become rich|become famous|become a doctor
|get a visa|travel to Japan|get to the station|book a flight|cancel a flight|install Windows|install Linux
|reset my phone|print a photo|take a photo|edit a video|make a website|write a program in Python|sort a list in Python
|center a div|use Excel|use Photoshop|use git|write SQL|solve a cubic equation|prove a theorem|compute pi|draw a face
|draw a horse|fold a crane|solve a cube|juggle|whistle|dance salsa|sing|ski|surf|sail|skate|fish|hunt mushrooms|milk a cow
|shear a sheep|catch a mouse|get rid of ants|treat a cold|cure a headache|measure a room|measure blood pressure
|inspect a car|inspect a house|plan a wedding|plan a trip|plan a party|parse a sentence|render a wall|limit my spending
|choose a wife|choose a name|choose a phone|restore a painting|restore a clock|resume my career|continue my studies
|interrupt a speaker|cancel a subscription|cancel my order|cool a room|heat a house|turn on the light|turn off the oven
|turn off the water|switch on the TV|turn lead into gold|turn milk into cheese|see the northern lights|see the moon
|keep bees|keep a secret|store potatoes|store wine|exit a motorway|leave a party|enter a race|use a hammer|use a compass
|count sheep|count to ten in Latin|test the water|speed up my car|split wood|decode a secret message|encode a video"""
ACTIVITIES = [a.strip() for a in ACTIVITIES.replace("\n", " ").split("|")]
FIELDS = """quantum nuclear solar lunar modern ancient classical medieval organic digital social political human animal
plant marine local global royal public private Roman Greek Chinese French German Japanese African American black white
electric magnetic atomic general special artificial natural deep dark cold hot fast slow big small old new young""".split()
SYLLABLES = """ba be bi bo bu da de di do du fa fe fi ga ge go ha he ho ka ke ki ko la le li lo lu ma me mi mo mu na ne ni
no pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi wa we za zo ran tal mer kon dor vin sel""".split()
