//! `ds4`: chat and script commands.

fn main() -> std::process::ExitCode {
    ds4::run(std::env::args_os())
}
