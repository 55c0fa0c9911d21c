//! OpenAI's responses.

mod items;
mod kept;
mod request;
mod response;

pub(crate) use kept::{KeptResponse, KeptResponses};
pub use request::{ResponsesRequest, previous_response_id, responses_request};
pub use response::{ResponseHeader, ResponseStream};
