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
            slots = []
            size = 0
            cache.markSent(claims)
            claims = []
        }
    }

    /// The server's content takes the place of ours.
    func replace(size newSize: UInt64, slots newSlots: [Slot]) {
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

    /// Puts the chunks of sealed segments into the slots where nobody wrote meanwhile.
    /// - Parameter frozen: the slots as the commit froze them.
    func install(_ frozen: [Slot], _ references: [ObjectIdentifier: ChunkReference?]) {
        lock.withLock {
            for (index, slot) in frozen.enumerated() {
                guard let segment = slot.segment, let sealed = references[ObjectIdentifier(segment)] else { continue }
                if let sealed {
                    claims.append(sealed.hash)
                    // A patch's chunk is a file of its own, which `Sealer` synced.
                    if !segment.isSynced, segment.patch == nil { unsynced.append(sealed) }
                    segment.sealed = sealed
                }
                if index < slots.count, slots[index].segment === segment { slots[index] = sealed.map { .chunks([$0]) } ?? .hole }
                segment.isTaken = false
                drop(segment)
            }
        }
    }

    /// The commit that froze these slots was not prepared after all.
    func takeBack(_ frozen: [Slot]) {
        lock.withLock {
            for (index, slot) in frozen.enumerated() {
                guard let segment = slot.segment else { continue }
                segment.isTaken = false
                if index >= slots.count || slots[index].segment !== segment { drop(segment) }
            }
        }
    }

    /// The slot has again what it had before something was written that is lost.
    func restoreOrigin(_ index: Int) {
        lock.withLock {
            guard let segment = slots[index].segment, let origin = segment.origin else { return }
            drop(segment)
            slots[index] = .chunks([origin])
        }
    }

    /// Puts zeros in the place of a chunk.
    /// - Returns: whether there was one.
    func zero(_ hash: ChunkHash) -> Bool {
        lock.withLock {
            var isFound = false
            for (index, slot) in slots.enumerated() {
                guard case .chunks(let chunks) = slot, chunks.contains(where: { $0.hash == hash }) else { continue }
                slots[index] = .chunks(chunks.map { $0.hash == hash ? ChunkReference(hash: .hole, length: $0.length) : $0 })
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
        lock.withLock {
            for case .chunks(let chunks) in slots {
                for chunk in chunks where !chunk.isHole && cache.contains(chunk.hash) {
                    cache.claimUnsent(chunk.hash)
                    claims.append(chunk.hash)
                }
            }
        }
    }

    /// The server has it: a power cut here loses nothing any more.
    func uploaded() {
        lock.withLock { if claims.isEmpty { unsynced = [] } }
    }
}
