//! The `hookgate` binary: arguments to command to exit code.

fn main() -> std::process::ExitCode {
    hookgate::cli::main()
}
