import Shared

/// What is in the cache, and who goes next: CLOCK (Corbató 1968), a ring of chunks in which a used one is passed over once.
struct CacheState: Sendable {
    struct Chunk: Sendable {
        var length: UInt32
        var claims = 0
        var wasUsed = true
        /// nil: not verified by anyone.
        var mark: FileMark?
        /// nil: it is a file of its own.
        var place: Place?
    }

    struct Place: Sendable, Equatable { let pack: UInt64, offset: Int }

    struct PackState: Sendable {
        let byteCount: UInt64
        var members: Set<ChunkHash> = []
        /// How many of them have a claim.
        var claimed = 0
    }

    /// A file that is no longer needed.
    enum Victim: Sendable, Equatable { case chunk(ChunkHash), pack(UInt64) }

    /// Of files: a pack counts with all that it holds until it goes.
    private(set) var chunkBytes: UInt64 = 0
    private(set) var packs: [UInt64: PackState] = [:]
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

    /// A chunk that is a file.
    /// - Returns: the pack that had it, if that has nothing else.
    mutating func add(_ hash: ChunkHash, length: UInt32, mark: FileMark?) -> Victim? {
        guard let known = chunks[hash] else {
            chunks[hash] = Chunk(length: length, mark: mark)
            chunkBytes += UInt64(length)
            ring.append(hash)
            return nil
        }
        // Its file was replaced, perhaps one that a power cut had shortened.
        chunkBytes = chunkBytes - (known.place == nil ? UInt64(known.length) : 0) + UInt64(length)
        if known.claims > 0 { claimedBytes = claimedBytes - UInt64(known.length) + UInt64(length) }
        (chunks[hash]!.length, chunks[hash]!.mark, chunks[hash]!.place) = (length, mark, nil)
        return known.place.flatMap { leave($0, hash, known) }
    }

    /// A pack's chunks. It was synced, which files need not be: it takes their place.
    /// - Returns: files that are not needed, itself if other packs have all of it.
    mutating func add(_ pack: Pack.Contents) -> [Victim] {
        var added = PackState(byteCount: pack.byteCount), replaced: [Victim] = []
        for member in pack.members {
            let hash = member.reference.hash, place = Place(pack: pack.number, offset: member.offset)
            if let known = chunks[hash] {
                guard known.place == nil, known.length == member.reference.length else { continue }
                (chunks[hash]!.mark, chunks[hash]!.place) = (pack.mark, place)
                chunkBytes -= UInt64(known.length)
                if known.claims > 0 { added.claimed += 1 }
                replaced.append(.chunk(hash))
            } else {
                chunks[hash] = Chunk(length: member.reference.length, mark: pack.mark, place: place)
                ring.append(hash)
            }
            added.members.insert(hash)
        }
        guard !added.members.isEmpty else { return [.pack(pack.number)] }
        packs[pack.number] = added
        chunkBytes += added.byteCount
        return replaced
    }

    /// - Returns: the file that goes with it.
    mutating func remove(_ hash: ChunkHash) -> Victim? {
        guard let chunk = chunks.removeValue(forKey: hash) else { return nil }
        if chunk.claims > 0 { claimedBytes -= UInt64(chunk.length) }
        if let place = chunk.place { return leave(place, hash, chunk) }
        chunkBytes -= UInt64(chunk.length)
        return .chunk(hash)
    }

    private mutating func leave(_ place: Place, _ hash: ChunkHash, _ chunk: Chunk) -> Victim? {
        packs[place.pack]!.members.remove(hash)
        if chunk.claims > 0 { packs[place.pack]!.claimed -= 1 }
        guard packs[place.pack]!.members.isEmpty else { return nil }
        chunkBytes -= packs.removeValue(forKey: place.pack)!.byteCount
        return .pack(place.pack)
    }

    /// Whether nothing keeps the file in which the chunk lies.
    private func isClean(_ chunk: Chunk) -> Bool { chunk.claims == 0 && chunk.place.map { packs[$0.pack]!.claimed == 0 } ?? true }

    /// Takes out all that lies in the chunk's file.
    private mutating func removeFile(of hash: ChunkHash, _ chunk: Chunk) -> Victim? {
        guard let place = chunk.place else { return remove(hash) }
        return packs[place.pack]!.members.reduce(nil) { last, member in remove(member) ?? last }
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
        if chunk.claims == 0 {
            claimedBytes += UInt64(chunk.length)
            if let place = chunk.place { packs[place.pack]!.claimed += 1 }
        }
        chunks[hash]!.claims += 1
        return true
    }

    mutating func release(_ hash: ChunkHash) {
        guard let chunk = chunks[hash], chunk.claims > 0 else { return }
        chunks[hash]!.claims -= 1
        guard chunk.claims == 1 else { return }
        claimedBytes -= UInt64(chunk.length)
        if let place = chunk.place { packs[place.pack]!.claimed -= 1 }
    }

    /// Files to remove so that `bytes` more fit into `limit`; what they hold is taken out here.
    mutating func victims(toFit bytes: UInt64, limit: UInt64) -> (victims: [Victim], fits: Bool) {
        var victims: [Victim] = []
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
            if chunk.wasUsed || !isClean(chunk) {
                chunks[hash]!.wasUsed = false
                hand += 1
                passed += 1
                continue
            }
            if let victim = removeFile(of: hash, chunk) { victims.append(victim) }
            ring.swapAt(hand, ring.count - 1)
            ring.removeLast()
        }
        statistics.evictions += victims.count
        return (victims, usedBytes + bytes <= limit)
    }

    mutating func takeClean(except kept: Set<ChunkHash> = []) -> [Victim] {
        let packsKept = Set(kept.compactMap { chunks[$0]?.place?.pack })
        let clean = chunks.filter { isClean($0.value) && !kept.contains($0.key) && !($0.value.place.map { packsKept.contains($0.pack) } ?? false) }.map(\.key)
        let victims = clean.compactMap { remove($0) }
        ring = Array(chunks.keys)
        hand = 0
        return victims
    }
}
