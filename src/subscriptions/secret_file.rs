//! The file that `apply` writes a subscription's secret to.
//!
//! Keeps true: the file is readable by its owner only, and replaced as a whole. That it can be written is known before
//! the provider is asked for the secret.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::kept::{folder, persist};
use crate::config::secret::Secret;

/// A secret file that can be written.
pub(super) struct SecretFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl SecretFile {
    /// Makes the file that will take the place of `path`.
    ///
    /// # Errors
    /// When its folder cannot be written. The text names the file.
    pub(super) fn reserve(path: &Path) -> Result<SecretFile, String> {
        let failed = |why: io::Error| format!("cannot write the secret file {}: {why}", path.display());
        if path.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let mut file = NamedTempFile::new_in(folder(path)).map_err(failed)?;
        // Room for the secret: a full disk shows now.
        file.write_all(&[b' '; RESERVED]).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        Ok(SecretFile { path: path.to_owned(), file })
    }

    /// Writes the secret.
    ///
    /// # Errors
    /// When it cannot be written. The text names the file.
    pub(super) fn write(self, secret: &Secret) -> Result<(), String> {
        let SecretFile { path, mut file } = self;
        let write = || {
            use std::io::Seek;
            file.rewind()?;
            file.write_all(secret.expose().as_bytes())?;
            file.as_file().set_len(secret.expose().len() as u64)?;
            persist(file, &path)
        };
        write().map_err(|why: io::Error| format!("cannot write the secret file {}: {why}", path.display()))
    }
}

/// Bytes, more than any secret.
const RESERVED: usize = 512;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_written_whole_for_its_owner_and_a_folder_that_cannot_be_written_is_told_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("basiq.secret");
        fs::write(&path, "old and much longer than the new one").unwrap();
        SecretFile::reserve(&path).unwrap().write(&Secret::new("whsec_new")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whsec_new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
        let nowhere = folder.path().join("absent").join("secret");
        let why = SecretFile::reserve(&nowhere).err().unwrap();
        assert!(why.contains("absent/secret"), "{why}");
        assert!(SecretFile::reserve(folder.path()).is_err(), "a folder is no file");
        drop(SecretFile::reserve(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "whsec_new", "reserved, and not written");
    }
}
