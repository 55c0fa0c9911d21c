//! `ds4-server`: `ds4 serve` under the name that descriptions of the reference use.

fn main() -> std::process::ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    arguments.insert(1.min(arguments.len()), "serve".into());
    ds4::run(arguments)
}
