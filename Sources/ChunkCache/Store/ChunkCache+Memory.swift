import Dispatch
import Glibc
import Shared

extension ChunkCache {
    private static let leaving = DispatchQueue(label: "chunks that leave memory", qos: .utility)
    /// Shorter ones are not worth opening.
    public static let leavingByteCount = 256 << 10

    /// Takes chunks' bytes out of the kernel's page cache, as a local file's leave it when the file is removed: the memory is for what comes
    /// next. The chunks stay here, as other files may have them too.
    public func leaveMemory(_ chunks: [ChunkReference]) {
        let paths = chunks.lazy.filter { $0.length >= Self.leavingByteCount && !$0.isHole }.map { self.path($0.hash) }
        guard !paths.isEmpty else { return }
        Self.leaving.async { [paths = Array(paths)] in
            for path in paths {
                let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
                guard descriptor >= 0 else { continue }
                posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
                Glibc.close(descriptor)
            }
        }
    }
}
