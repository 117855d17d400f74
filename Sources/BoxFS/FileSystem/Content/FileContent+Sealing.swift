import ChunkCache
import Shared

// What becomes of segments: sealed by a commit, or given up; and the claims on what they became.
extension FileContent {
    /// The slot loses what it has. Under the lock.
    func discard(_ slot: Slot) {
        guard case .segment(let segment) = slot else { return }
        guard segment.isTaken else { return drop(segment) }
        cache.release(bytes: Int64(segment.reserved))
        segment.reserved = 0
    }

    /// No slot and no commit needs the segment any more; patches over it may. Under the lock.
    func drop(_ segment: Segment) {
        if let patch = segment.patch {
            cache.release(bytes: Int64(segment.reserved))
            segment.reserved = 0
            for file in [patch.base, patch.log] {
                file.patches -= 1
                if file.patches == 0, file.isSuperseded { remove(file) }
            }
        } else if segment.patches > 0 {
            segment.isSuperseded = true
        } else {
            remove(segment)
        }
    }

    private func remove(_ file: Segment) {
        cache.release(bytes: Int64(file.reserved))
        file.reserved = 0
        if file.held == nil { abandoned.append(file.file) }
        if log === file { log = nil }
    }

    /// Files that the rows just written do not name.
    func takeRemovable() -> [Int64] {
        lock.withLock {
            defer { removable = [] }
            return removable
        }
    }

    /// Files that no slot needs any more; for who removes the rows.
    func takeAbandoned() -> [Int64] {
        lock.withLock {
            defer { (abandoned, removable) = ([], []) }
            return abandoned + removable
        }
    }

    /// The node is gone: nothing of it is needed.
    func discardSegments() {
        lock.withLock {
            for slot in slots { discard(slot) }
            slots = SlotTable()
            size = 0
            cache.markSent(claims)
            claims = []
        }
    }

    /// The server's content takes the place of ours.
    func replace(size newSize: UInt64, slots newSlots: SlotTable) {
        lock.withLock {
            for slot in slots { discard(slot) }
            slots = newSlots
            size = newSize
            unsynced = []
        }
    }

    /// Another manifest takes the place of this content, which was sent whole: a read under way may still use it, no write will.
    func retire() {
        lock.withLock { for slot in slots { discard(slot) } }
    }

    func closeDescriptors() {
        lock.withLock {
            for case .segment(let segment) in slots { segment.close() }
        }
    }

    /// A commit takes the content as it is: the next writes to these segments go elsewhere.
    func freeze() -> (size: UInt64, slots: SlotTable) {
        lock.withLock {
            for case (let index, .segment(let segment)) in slots.enumerated() {
                (segment.isFrozen, segment.isTaken, segment.replacesSynced) = (true, true, segment.origin != nil)
                segment.parts = parts(of: segment, index)
            }
            return (size, slots)
        }
    }

    private func parts(of segment: Segment, _ index: Int) -> [Range<Int>] {
        let count = slots.stretchCount(index), head = Manifest.headByteCount
        if let patch = segment.patch { return patch.parts(length: segment.length, atMost: Self.maximumStretchSlots - count + 1) }
        let isHead = index == 0 && count == 1 && size > SlotTable.stretch && segment.length > head
        return isHead ? [0..<head, head..<segment.length] : [0..<segment.length]
    }

    /// Slots between two multiples of 4 MiB, so that a file that is edited all over does not fall apart.
    private static let maximumStretchSlots = 16

    /// Puts the chunks of sealed segments into the slots where nobody wrote meanwhile.
    /// - Parameters:
    ///   - frozen: the slots as the commit froze them.
    ///   - chunks: of each segment, in order.
    func install(_ frozen: SlotTable, _ chunks: [ObjectIdentifier: [ChunkReference]]) {
        lock.withLock {
            for case (let index, .segment(let segment)) in frozen.enumerated() {
                guard let sealed = chunks[ObjectIdentifier(segment)] else { continue }
                claims += sealed.map(\.hash)
                // The chunks of a patch, or several of one segment, are files of their own, which `Sealer` synced.
                if !segment.isSynced, segment.patch == nil, sealed.count == 1 { unsynced += sealed }
                segment.sealed = sealed.count == 1 ? sealed[0] : nil
                if let index = slots.index(of: segment, at: frozen.start(index)) { slots.replace(index, by: sealed) }
                segment.isTaken = false
                drop(segment)
            }
        }
    }

    /// The commit that froze these slots was not prepared after all.
    func takeBack(_ frozen: SlotTable) {
        lock.withLock {
            for case (let index, .segment(let segment)) in frozen.enumerated() {
                segment.isTaken = false
                if slots.index(of: segment, at: frozen.start(index)) == nil { drop(segment) }
            }
        }
    }

    /// The slot that begins at `start` has again what it had before something was written that is lost.
    func restoreOrigin(_ start: Int) {
        lock.withLock {
            let index = slots.index(at: start)
            if index < slots.count, let segment = slots[index].segment, segment.origin != nil { putBack(segment, at: index) }
        }
    }

    /// A slot has what it had before its segment. Under the lock.
    func putBack(_ segment: Segment, at index: Int) {
        drop(segment)
        slots[index] = segment.origin.map(Slot.chunk) ?? .hole
    }

    /// Puts zeros in the place of a chunk.
    /// - Returns: whether there was one.
    func zero(_ hash: ChunkHash) -> Bool {
        lock.withLock {
            var isFound = false
            for index in slots.indices where slots[index].chunk?.hash == hash {
                slots[index] = .hole
                isFound = true
            }
            return isFound
        }
    }

    func takeClaims() -> [ChunkHash] {
        lock.withLock {
            defer { claims = [] }
            return claims
        }
    }

    /// Chunks sealed before this process began hold no claim yet: whatever of the content is in the cache gets one.
    func restateClaims() {
        lock.withLock { claim(slots) }
    }

    /// Under the lock.
    func claim(_ slots: SlotTable) {
        for chunk in slots.lazy.compactMap(\.chunk) where cache.contains(chunk.hash) {
            cache.claimUnsent(chunk.hash)
            claims.append(chunk.hash)
        }
    }

    /// The server has it: a power cut here loses nothing any more.
    func uploaded() {
        lock.withLock { if claims.isEmpty { unsynced = [] } }
    }
}
