import COpenSSL

/// scrypt (RFC 7914) by OpenSSL: turns a password into a key, slowly and with much memory.
public enum Scrypt {
    /// Cost parameters as RFC 7914 names them. Memory used is 128·N·r bytes.
    public struct Cost: Sendable, Equatable {
        public let n: UInt64, r: UInt64, p: UInt64
        public init(n: UInt64, r: UInt64, p: UInt64) { (self.n, self.r, self.p) = (n, r, p) }
        /// 32 MiB, about a tenth of a second: OWASP's password storage cheat sheet lists N=2^15, r=8, p=3.
        public static let interactive = Cost(n: 1 << 15, r: 8, p: 3)
    }

    /// - Returns: 32 bytes, or nil when OpenSSL refuses the cost (N no power of two, too much memory).
    public static func derive(password: [UInt8], salt: [UInt8], cost: Cost = .interactive) -> [UInt8]? {
        var key = [UInt8](repeating: 0, count: 32)
        let done = password.withUnsafeBytes { password in
            EVP_PBE_scrypt(
                password.baseAddress?.assumingMemoryBound(to: CChar.self), password.count, salt, salt.count,
                cost.n, cost.r, cost.p, 256 << 20, &key, key.count)
        }
        return done == 1 ? key : nil
    }
}

/// Random bytes and comparisons that secrets need.
public enum Secret {
    /// `count` bytes from OpenSSL's generator, fit for tokens and salts.
    public static func random(count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        precondition(RAND_bytes(&bytes, Int32(count)) == 1, "the system has no random numbers")
        return bytes
    }

    /// Compares without telling by its duration where the first difference is.
    public static func equal(_ a: [UInt8], _ b: [UInt8]) -> Bool {
        a.count == b.count && CRYPTO_memcmp(a, b, a.count) == 0
    }
}
