import Glibc

/// A file descriptor that stays open while the value lives.
final class OpenDescriptor: Sendable {
    let rawValue: Int32
    private let owner: (any AnyObject & Sendable)?

    /// Takes the descriptor over: it is closed with the last reference.
    init(owning descriptor: Int32) {
        rawValue = descriptor
        owner = nil
    }

    /// Somebody else's descriptor, which `owner` keeps open while it lives.
    init(_ descriptor: Int32, keptOpenBy owner: any AnyObject & Sendable) {
        rawValue = descriptor
        self.owner = owner
    }

    deinit { if owner == nil { close(rawValue) } }
}
