import Shared

/// What is in the cache, and who goes next: CLOCK (Corbató 1968), a ring of chunks in which a used one is passed over once.
struct CacheState: Sendable {
    struct Chunk: Sendable {
        var length: UInt32
        var claims = 0
        var wasUsed = true
        /// nil: not verified by anyone.
        var mark: FileMark?
    }

    private(set) var chunkBytes: UInt64 = 0
    private(set) var claimedBytes: UInt64 = 0
    var reservedBytes: UInt64 = 0
    /// Of chunks that are being written.
    var arrivingBytes: UInt64 = 0
    /// Of segments that are counted as chunks already.
    var doubleBytes: UInt64 = 0
    var usedBytes: UInt64 { chunkBytes + arrivingBytes + reservedBytes - min(reservedBytes, doubleBytes) }
    var unsentBytes: UInt64 { claimedBytes + reservedBytes - min(reservedBytes, doubleBytes) }
    var chunks: [ChunkHash: Chunk] = [:]
    var statistics = ChunkCache.Statistics()
    /// May hold chunks that are gone: passed over when the hand comes by.
    private var ring: [ChunkHash] = []
    private var hand = 0

    mutating func add(_ hash: ChunkHash, length: UInt32, mark: FileMark?) {
        if let known = chunks[hash] {       // its file was replaced, perhaps one that a power cut had shortened
            chunkBytes = chunkBytes - UInt64(known.length) + UInt64(length)
            if known.claims > 0 { claimedBytes = claimedBytes - UInt64(known.length) + UInt64(length) }
            chunks[hash]!.length = length
            chunks[hash]!.mark = mark
            return
        }
        chunks[hash] = Chunk(length: length, mark: mark)
        chunkBytes += UInt64(length)
        ring.append(hash)
    }

    mutating func remove(_ hash: ChunkHash) {
        guard let chunk = chunks.removeValue(forKey: hash) else { return }
        chunkBytes -= UInt64(chunk.length)
        if chunk.claims > 0 { claimedBytes -= UInt64(chunk.length) }
    }

    func holds(_ reference: ChunkReference) -> Bool { chunks[reference.hash]?.length == reference.length }

    mutating func use(_ hash: ChunkHash) -> Chunk? {
        guard let chunk = chunks[hash] else {
            statistics.misses += 1
            return nil
        }
        statistics.hits += 1
        if !chunk.wasUsed { chunks[hash]!.wasUsed = true }
        return chunk
    }

    /// - Returns: false if the chunk is not here.
    mutating func claim(_ hash: ChunkHash) -> Bool {
        guard let chunk = chunks[hash] else { return false }
        if chunk.claims == 0 { claimedBytes += UInt64(chunk.length) }
        chunks[hash]!.claims += 1
        return true
    }

    mutating func release(_ hash: ChunkHash) {
        guard let chunk = chunks[hash], chunk.claims > 0 else { return }
        chunks[hash]!.claims -= 1
        if chunk.claims == 1 { claimedBytes -= UInt64(chunk.length) }
    }

    /// Chunks to remove so that `bytes` more fit into `limit`; they are taken out here.
    mutating func victims(toFit bytes: UInt64, limit: UInt64) -> (victims: [ChunkHash], fits: Bool) {
        var victims: [ChunkHash] = []
        var passed = 0
        let rounds = ring.count * 2      // the first takes every chunk's second chance, the second takes all that is clean
        while usedBytes + bytes > limit, passed < rounds, !ring.isEmpty {
            if hand >= ring.count { hand = 0 }
            let hash = ring[hand]
            guard let chunk = chunks[hash] else {
                ring.swapAt(hand, ring.count - 1)
                ring.removeLast()
                continue
            }
            if chunk.claims > 0 || chunk.wasUsed {
                chunks[hash]!.wasUsed = false
                hand += 1
                passed += 1
                continue
            }
            remove(hash)
            ring.swapAt(hand, ring.count - 1)
            ring.removeLast()
            victims.append(hash)
        }
        statistics.evictions += victims.count
        return (victims, usedBytes + bytes <= limit)
    }

    mutating func takeClean(except kept: Set<ChunkHash> = []) -> [ChunkHash] {
        let clean = chunks.filter { $0.value.claims == 0 && !kept.contains($0.key) }.map(\.key)
        for hash in clean { remove(hash) }
        ring = Array(chunks.keys)
        hand = 0
        return clean
    }
}
