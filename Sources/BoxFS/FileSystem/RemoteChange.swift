/// Something that changed elsewhere, as programs that watch folders here shall see it (inotify(7)).
struct RemoteChange: Sendable {
    /// Changes that wait to be shown; past these, new ones are not shown.
    static let maximumWaiting = 10_000

    enum Kind: Sendable {
        /// An entry appeared. The type bits of its mode say what is to be seen.
        case created(name: String, in: InodeNumber, mode: UInt32)
        /// An entry is gone.
        case removed(name: String, in: InodeNumber, isDirectory: Bool)
        /// A file that was there has other content.
        case modified
    }
    /// From the mount's root, without a leading slash.
    var path: String
    var kind: Kind
}
