import ArgumentParser
import Foundation

/// Where a server is: `http` or `https`, a host, perhaps a port and a path prefix; nothing else.
struct ServerAddress: Hashable, Sendable, ExpressibleByArgument, CustomStringConvertible {
    /// Without a slash at the end.
    let description: String
    let host: String
    let isEncrypted: Bool

    /// Whether a password may go there in the clear: it does not leave this machine.
    var isLoopback: Bool { host == "localhost" || host == "::1" || host.hasPrefix("127.") }

    init?(argument: String) {
        guard let parts = URLComponents(string: argument), let scheme = parts.scheme?.lowercased(), ["http", "https"].contains(scheme),
            let host = parts.host, !host.isEmpty, parts.user == nil, parts.password == nil, parts.query == nil, parts.fragment == nil
        else { return nil }
        var plain = host
        if plain.hasPrefix("["), plain.hasSuffix("]") { plain = String(plain.dropFirst().dropLast()) }
        self.host = plain.lowercased()
        isEncrypted = scheme == "https"
        var text = "\(scheme)://" + (plain.contains(":") ? "[\(plain)]" : plain).lowercased()
        if let port = parts.port {
            guard (1...65535).contains(port) else { return nil }
            text += ":\(port)"
        }
        var path = parts.percentEncodedPath
        while path.hasSuffix("/") { path.removeLast() }
        description = text + path
    }
}
