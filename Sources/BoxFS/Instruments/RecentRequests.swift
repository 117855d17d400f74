import Synchronization

/// The last open, read and write of the inodes that were used lately: what `boxfs why` tells.
///
/// A table of a fixed size; an inode's place is its number's remainder, so a newer inode takes an older one's place. Numbers are given
/// one after the other: it takes thousands of other files until a file is forgotten.
final class RecentRequests: Sendable {
    static let stripeCount = 64, stripeSlots = 64

    struct Last: Sendable {
        var inode: UInt64 = 0
        var open, read, write: Kept?
    }

    struct Kept: Sendable {
        let operation: RequestOperation
        let began: UInt64, nanoseconds: UInt64
        let error: Int32, thread: Int32
        let offset: Int64?, length: Int?
        let amount: Int64
        let waits: [Wait]

        init(_ account: RequestAccount, _ error: Int32, _ nanoseconds: UInt64) {
            operation = account.call.operation
            (began, self.nanoseconds, self.error, thread) = (account.began, nanoseconds, error, account.thread)
            (offset, length, amount, waits) = (account.call.offset, account.call.length, account.amount, account.waits)
        }
    }

    private final class Stripe: Sendable {
        let slots = Mutex<[Last]>([])
    }
    private let stripes = (0..<stripeCount).map { _ in Stripe() }

    /// - Parameter inode: what was opened; the call's own inode unless it made one.
    func note(_ account: RequestAccount, _ error: Int32, _ nanoseconds: UInt64) {
        let inode = account.made ?? account.call.inode, kept = Kept(account, error, nanoseconds)
        at(inode) { last in
            if last.inode != inode { last = Last(inode: inode) }
            switch kept.operation {
            case .read: last.read = kept
            case .write: last.write = kept
            default: last.open = kept
            }
        }
    }

    /// Nil when nothing is remembered of the inode.
    func last(_ inode: UInt64) -> Last? { at(inode) { $0.inode == inode ? $0 : nil } }

    private func at<Result: Sendable>(_ inode: UInt64, _ body: (inout Last) -> Result) -> Result {
        let stripe = stripes[Int(inode % UInt64(Self.stripeCount))]
        return stripe.slots.withLock { slots in
            if slots.isEmpty { slots = [Last](repeating: Last(), count: Self.stripeSlots) }
            return body(&slots[Int(inode / UInt64(Self.stripeCount) % UInt64(Self.stripeSlots))])
        }
    }
}
