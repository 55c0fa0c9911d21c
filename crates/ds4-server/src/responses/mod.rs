//! OpenAI's responses.

mod items;
mod kept;
mod request;
mod response;
mod response_file;
mod response_store;

pub(crate) use kept::{KeptResponse, KeptResponses};
pub use request::{ResponsesRequest, previous_response_id, responses_request};
pub use response::{ResponseHeader, ResponseStream};
pub use response_file::{ResponseFile, ResponseFileError};
