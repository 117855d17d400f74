import Shared

/// Checks the passwords of links one after the other: each check takes 32 MiB and a tenth of a second of a processor, and a hundred
/// guesses at once shall not be a way around the pause after failures.
actor LinkPasswords {
    private let drive: Drive
    private let limiter: RateLimiter
    private var last: Task<Void, Never>?
    /// The proofs of passwords that were right a moment ago, by the hash of token and password: many downloads at once cost one scrypt.
    private var proofs: [ChunkHash: (proof: String, until: Timestamp)] = [:]
    private static let proofSeconds: Int64 = 60, maximumProofs = 1000

    init(_ drive: Drive, _ limiter: RateLimiter) { (self.drive, self.limiter) = (drive, limiter) }

    /// - Throws: what `Drive.visit` throws, and `RateLimited` for who has guessed too often.
    func visit(_ token: String, password: String, address: String, endsExhausted: Bool) async throws -> LinkVisit {
        let before = last
        let task = Task { () throws -> LinkVisit in
            await before?.value
            return try await check(token, password, address, endsExhausted)
        }
        last = Task { _ = await task.result }
        return try await task.value
    }

    private func check(_ token: String, _ password: String, _ address: String, _ endsExhausted: Bool) async throws -> LinkVisit {
        let hash = SHA256.hash(Array("\(token)\u{0}\(password)".utf8)), key = "link\u{0}\(token)\u{0}\(address)", time = drive.now()
        try limiter.check(key)      // first: a proof that is known must not answer who guesses
        if let known = proofs[hash], known.until > time { return try await drive.visit(token, .cookie(known.proof), endsExhausted: endsExhausted) }
        do throws(DriveError) {
            let visit = try await drive.visit(token, .password(password), endsExhausted: endsExhausted)
            limiter.succeeded(key)
            if proofs.count >= Self.maximumProofs { proofs = proofs.filter { $0.value.until > time } }
            if let proof = visit.link.proof, proofs.count < Self.maximumProofs {
                proofs[hash] = (proof, Timestamp(nanoseconds: time.nanoseconds + Self.proofSeconds * 1_000_000_000))
            }
            return visit
        } catch {
            if case .linkPassword(isWrong: true) = error { limiter.failed(key) }
            throw error
        }
    }
}
