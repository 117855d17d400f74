import CLinux

/// Dirty pages of files (Linux).
public enum WriteBack {
    /// Asks the kernel to begin writing a file's, as it would by itself some seconds later. It may wait while the disk's queue is full. What fails
    /// is told by fsync(2).
    public static func begin(_ descriptor: Int32) { linux_begin_writing(descriptor) }
}
