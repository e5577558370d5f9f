//! An rsyslogd of a test's own, to be ended, killed and brought back.

use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::process::Process;
use super::until;

/// The program.
pub struct Rsyslog {
    /// None while it is down.
    process: Option<Process>,
    /// Its config, and its state.
    folder: TempDir,
}

impl Rsyslog {
    /// With this config, in a work folder of its own.
    pub fn start(config: &str) -> Rsyslog {
        let folder = tempfile::tempdir().unwrap();
        let work = format!("global(workDirectory=\"{}\")\n", folder.path().display());
        std::fs::write(folder.path().join("rsyslog.conf"), work + config).unwrap();
        let mut rsyslog = Rsyslog { process: None, folder };
        rsyslog.restart();
        rsyslog
    }

    pub fn restart(&mut self) {
        let at = |name: &str| self.folder.path().join(name);
        let mut command = Command::new("rsyslogd");
        command.arg("-n").arg("-f").arg(at("rsyslog.conf")).arg("-i").arg(at("pid"));
        self.process = Some(Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null())));
    }

    /// Ends it as its service does.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        process.signal("TERM");
        until("rsyslogd ends", async || process.ended().is_some()).await;
    }

    /// Ends it in the middle of whatever it does.
    pub fn kill9(&mut self) {
        self.process.take().unwrap().kill9();
    }

    /// Makes it forget how far it has read.
    pub fn forget(&self) {
        for file in std::fs::read_dir(self.folder.path()).unwrap() {
            let path = file.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("imfile-state:") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}
