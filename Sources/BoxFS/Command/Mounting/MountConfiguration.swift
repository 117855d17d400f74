import Glibc
import Shared

/// All that a mount process is told: the options of `boxfs mount` and the profile's account.
struct MountConfiguration: Sendable {
    /// Absolute, without symbolic links: an existing empty folder.
    var mountPoint: String
    /// Holds the replica, the log, unsent data and the cache, on one file system; locked by this process.
    var stateFolder: String
    var cacheLimitBytes: UInt64
    var durability: Durability
    var deadlineSeconds: Double
    var posixOwners: Bool
    /// Other users may enter; always so with `posixOwners`.
    var allowOther: Bool
    /// Bytes a second, 0 for no limit.
    var uploadLimit: UInt64
    var downloadLimit: UInt64

    var profileName: ProfileName
    var profile: Profile
    /// Named in versions and conflicted copies: the host's name.
    var device: String
    /// Whom everything belongs to without `posixOwners`.
    var uid: UInt32
    var gid: UInt32
    /// How long the scrub of the cache rests at least between two steps.
    var scrubRestSeconds = Scrubber.standardRestSeconds

    var record: MountRecord {
        MountRecord(
            mountPoint: mountPoint, stateFolder: stateFolder, process: getpid(), profile: profileName.description,
            server: profile.server, account: profile.user)
    }
}

/// A mount that the kernel shows.
struct RunningMount: Sendable {
    let control: any MountControl
    /// Answers the kernel until the file system is unmounted, by whomever; then brings the replica to rest and returns.
    /// Blocks the calling thread.
    let run: @Sendable () -> Void
    /// Takes the mount out of sight although files are in use; `run` returns soon after.
    let detach: @Sendable () -> Void
}
