//! `ds4-cli`: `ds4` under the name that descriptions of the reference use.

fn main() -> std::process::ExitCode {
    ds4::run(std::env::args_os())
}
