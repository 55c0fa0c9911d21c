//! OpenAI's responses.

mod items;
mod request;
mod response;

pub use request::{ResponsesRequest, previous_response_id, responses_request};
pub use response::{ResponseHeader, ResponseStream};
