//! Steering along directions.

use std::path::PathBuf;

use clap::Args;

/// Whether and how far outputs are moved along directions.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Steering")]
pub(crate) struct SteeringArguments {
    /// Directions to move the outputs of all layers along; `ds4 steer` makes such a file
    #[arg(long, value_name = "FILE.f32")]
    pub(crate) dir_steering_file: Option<PathBuf>,
    /// Scale behind the experts: above 0 takes the direction out, below 0 adds to it [default: 1,
    /// or 0 if --dir-steering-attn is given]
    #[arg(
        long,
        value_name = "F",
        requires = "dir_steering_file",
        allow_negative_numbers = true
    )]
    pub(crate) dir_steering_ffn: Option<f32>,
    /// The same behind attention [default: 0]
    #[arg(
        long,
        value_name = "F",
        requires = "dir_steering_file",
        allow_negative_numbers = true
    )]
    pub(crate) dir_steering_attn: Option<f32>,
}
