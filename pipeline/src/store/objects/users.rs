//! Who uses the bucket, and who removes things from it: never both at once.

use super::Objects;
use super::client::Named;
use super::names::{EXCLUSIVE, USERS};
use crate::spec::error::StageError;
use crate::store::Held;

impl Objects {
    /// First says that it is here, and then looks for whoever removes things; that one does it the other way round.
    pub(super) fn begin_use(&self) -> Result<Held, StageError> {
        let user = self.leases.take(&format!("{USERS}/{}", self.leases.unique()))?;
        while self.exclusive_is_held()? {
            std::thread::sleep(self.limits.patience);
        }
        Ok(Box::new(user))
    }

    /// For removing things: refused while anybody uses the store.
    pub(super) fn begin_removal(&self) -> Result<Held, StageError> {
        let in_use = |by: &str| {
            let text = format!("{} is in use by {by}", self.client.name);
            StageError::new(text)
                .help("Wait for it to end, or stop it. What a killed process left counts for a while more.")
        };
        let held = self.leases.take(EXCLUSIVE)?.ok_or_else(|| in_use("another gc or verify"))?;
        let users = self.client.list(USERS)?;
        for user in &users {
            if self.leases.is_alive(user.modified)? {
                return Err(in_use("a run"));
            }
        }
        self.remove_dead(&users)?;
        self.remove_dead(&self.client.list("claims")?)?;
        Ok(Box::new(held))
    }

    /// Leases of processes that are gone.
    fn remove_dead(&self, leases: &[Named]) -> Result<(), StageError> {
        let mut dead = Vec::new();
        for lease in leases {
            if !self.leases.is_alive(lease.modified)? {
                dead.push(lease.key.clone());
            }
        }
        if dead.is_empty() { Ok(()) } else { self.client.delete(dead) }
    }

    fn exclusive_is_held(&self) -> Result<bool, StageError> {
        match self.client.head(EXCLUSIVE)? {
            Some(held) => self.leases.is_alive(held.modified),
            None => Ok(false),
        }
    }
}
