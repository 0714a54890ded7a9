//! Whether a folder may be used by several hosts at once: only where a lock that one holds is seen by all.
//!
//! Leases are locks of files (`flock`). Network file systems carry them to the server, unless they are mounted so that each host
//! keeps its locks to itself; then two hosts would make the same output, and `gc` of one would delete what another is using.

use crate::spec::error::StageError;
use std::fs;
use std::path::{Path, PathBuf};

/// Refuses a folder whose locks are those of one host.
pub fn check(folder: &Path) -> Result<(), StageError> {
    // Only Linux lists mounts like this; elsewhere nothing is known.
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return Ok(()) };
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let Some(mount) = mount_of(&mounts, &folder) else { return Ok(()) };
    let Some(why) = mount.per_host_locks(&beegfs_config()) else { return Ok(()) };
    let text = format!(
        "{} lies on {} ({}), where locks are those of one host: {why}",
        folder.display(),
        mount.point.display(),
        mount.kind
    );
    Err(StageError::new(text).help(
        "Mount it so that locks are seen by all hosts, or put `store` on another file system. A plain `llavm run` on one host works.",
    ))
}

/// What the `BeeGFS` client says of its settings; empty where there is none.
fn beegfs_config() -> String {
    let clients = fs::read_dir("/proc/fs/beegfs").into_iter().flatten().flatten();
    clients.filter_map(|client| fs::read_to_string(client.path().join("config")).ok()).collect()
}

/// A mounted file system.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    /// Such as `nfs4`.
    kind: String,
    options: Vec<String>,
}

/// The mount that holds a path: the last of those with the longest mount point.
fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(parse);
    mounts.filter(|mount| path.starts_with(&mount.point)).max_by_key(|mount| mount.point.components().count())
}

/// A line of `/proc/self/mountinfo` (proc(5)): `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn parse(line: &str) -> Option<Mount> {
    let (mount, system) = line.split_once(" - ")?;
    let mount: Vec<&str> = mount.split(' ').collect();
    let system: Vec<&str> = system.split(' ').collect();
    let options = mount.get(5)?.split(',').chain(system.get(2)?.split(','));
    Some(Mount {
        point: unescaped(mount.get(4)?).into(),
        kind: (*system.first()?).to_owned(),
        options: options.map(str::to_owned).collect(),
    })
}

/// Blanks and the like are written as `\040`.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if let Some(byte) = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            out.push(char::from(byte));
            out.push_str(&part[3..]);
        } else {
            out.push('\\');
            out.push_str(part);
        }
    }
    out
}

/// File systems in user space that keep locks to one host, as `fuse.NAME`.
const LOCAL_FUSE: [&str; 8] =
    ["sshfs", "s3fs", "gcsfuse", "rclone", "mountpoint-s3", "goofys", "blobfuse", "blobfuse2"];

impl Mount {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|one| one == option)
    }

    /// Why locks on it are seen by one host only; `None` where they are not, as far as is known.
    fn per_host_locks(&self, beegfs: &str) -> Option<String> {
        let option = |name: &str| self.has(name).then(|| format!("it is mounted with `{name}`"));
        match self.kind.as_str() {
            "nfs" | "nfs4" => ["nolock", "local_lock=all", "local_lock=flock"].into_iter().find_map(option),
            "lustre" => option("localflock"),
            "cifs" | "smb3" => ["nobrl", "nolock"].into_iter().find_map(option),
            "ocfs2" => option("localflocks"),
            "beegfs" if !is_set(beegfs, "tuneUseGlobalFileLocks") => {
                Some("`tuneUseGlobalFileLocks` is not set in beegfs-client.conf".to_owned())
            }
            kind => {
                let name = kind.strip_prefix("fuse.")?;
                LOCAL_FUSE.contains(&name).then(|| format!("{name} keeps them so"))
            }
        }
    }
}

/// Whether `name = true` stands in a configuration, in one of its ways.
fn is_set(config: &str, name: &str) -> bool {
    let value = |line: &str| {
        line.trim().strip_prefix(name)?.trim().strip_prefix(['=', ':']).map(|value| value.trim().to_owned())
    };
    config.lines().filter_map(value).any(|value| matches!(value.as_str(), "1" | "true" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, options: &str) -> Mount {
        let line = format!("36 35 0:50 / /shared rw,noatime shared:1 - {kind} server:/export {options}");
        parse(&line).unwrap()
    }

    #[test]
    fn file_systems_whose_locks_one_host_sees_are_refused_with_the_reason() {
        let refused = |kind: &str, options: &str| mount(kind, options).per_host_locks("");
        assert!(refused("nfs", "rw,vers=3,nolock,addr=10.0.0.1").unwrap().contains("`nolock`"));
        assert!(refused("nfs4", "rw,local_lock=flock").unwrap().contains("local_lock=flock"));
        assert!(refused("lustre", "rw,localflock").unwrap().contains("localflock"));
        assert!(refused("fuse.s3fs", "rw").unwrap().contains("s3fs"));
        assert!(refused("beegfs", "rw").is_some());
    }

    #[test]
    fn file_systems_whose_locks_all_hosts_see_are_not() {
        let is_fine =
            |kind: &str, options: &str, beegfs: &str| mount(kind, options).per_host_locks(beegfs).is_none();
        assert!(is_fine("nfs4", "rw,vers=4.2,local_lock=none", ""));
        assert!(is_fine("nfs", "rw,local_lock=posix", ""), "flock goes to the server");
        assert!(is_fine("lustre", "rw,flock", ""));
        assert!(is_fine("ceph", "rw", "") && is_fine("gpfs", "rw", "") && is_fine("ext4", "rw", ""));
        assert!(is_fine("beegfs", "rw", "connPort: 8004\ntuneUseGlobalFileLocks: 1\n"));
        assert!(is_fine("fuse.glusterfs", "rw", ""));
    }

    #[test]
    fn the_mount_of_a_path_is_the_deepest() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      30 22 0:40 / /data rw - nfs4 server:/data rw,nolock\n\
                      31 30 0:41 / /data/with\\040blank rw - lustre fs rw,flock\n";
        let kind = |path: &str| mount_of(mounts, Path::new(path)).unwrap().kind;
        assert_eq!(kind("/home/me"), "ext4");
        assert_eq!(kind("/data/store"), "nfs4");
        assert_eq!(kind("/database"), "ext4");
        assert_eq!(kind("/data/with blank/store"), "lustre");
    }

    #[test]
    fn a_folder_of_this_machine_can_be_shared() {
        check(tempfile::tempdir().unwrap().path()).unwrap();
    }
}
