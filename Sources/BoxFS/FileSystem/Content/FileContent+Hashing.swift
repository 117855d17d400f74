import Dispatch
import Shared

// The hash of a full segment, made while the next one is written: the commit that takes both has it, where it would hash all of a long file at
// its end.
extension FileContent {
    private static let hashing = DispatchQueue(label: "hash full segments", qos: .utility)

    /// Waits for all that was begun; for tests.
    static func finishHashing() { hashing.sync {} }

    /// Nothing comes of it if its bytes change or a commit takes it before. Under the lock.
    /// - Parameter segment: with a file of `SlotTable.stretch` bytes.
    func beginHashing(_ segment: Segment) {
        let changes = segment.fileChanges
        Self.hashing.async { [self] in
            guard lock.withLock({ isAs(changes, segment) }), let file = try? segment.open(),
                  let hash = SHA256.hash(file.rawValue, count: SlotTable.stretch) else { return }
            lock.withLock { if isAs(changes, segment) { segment.fullHash = hash } }
        }
    }

    /// What is frozen is read without the lock.
    private func isAs(_ changes: Int, _ segment: Segment) -> Bool { segment.fileChanges == changes && !segment.isFrozen }
}
