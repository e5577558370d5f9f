//! The `hookgate` binary.

fn main() -> std::process::ExitCode {
    hookgate::cli::main()
}
