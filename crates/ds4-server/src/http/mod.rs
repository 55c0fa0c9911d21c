//! Sockets, routes and what every request passes before its endpoint.

mod answer;
mod endpoints;
mod error;
mod front;
mod guard;
mod half_close;
mod listener;
mod models;
mod observe;
mod openapi;
mod page;
mod request_body;
mod request_path;
mod router;
mod routes;
mod socket;
mod stream;

pub use listener::{RunningServer, ServerError, serve};
pub use request_body::parse_body;
