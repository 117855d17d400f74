import Shared
import Synchronization

/// The hidden, read-only folder `.boxfs/versions` at the mount's root, through which ordinary tools read older versions.
///
/// It shows the folders of the tree, and in the place of each file a folder of its versions; also of what was removed and is in the trash, under
/// its own name, or if that is taken under one that says when it was removed. Nothing of it is stored: this table knows only what
/// the kernel was told of, under numbers from 2^62 on, which the kernel keeps for a second (`Attributes.cacheSeconds`).
/// `MountedFileSystem+Versions.swift` says what the calls mean.
final class VersionsFolder: Sendable {
    enum Place: Hashable, Sendable {
        /// `.boxfs`
        case top
        /// A folder of the tree.
        case folder(InodeNumber)
        /// A file of the tree, here the folder of its versions.
        case file(InodeNumber)
        /// `of`: the file, or what `removed` has as `below`.
        case version(VersionID, of: InodeNumber)
        /// A removed folder or file, and the folder of the tree below which it was.
        case removedFolder(NodeID, below: InodeNumber)
        case removedFile(NodeID, name: String, below: InodeNumber)
    }

    static let name = ".boxfs"
    static let entryName = "versions"

    static func stands(in parent: InodeNumber, _ name: String) -> Bool { parent == .root && name == Self.name }

    struct Known: Sendable {
        let place: Place
        /// A version's bytes and mtime, which never change.
        let version: VersionInformation?
        var lookups: UInt64 = 0
    }

    typealias Entry = (name: String, place: Place, version: VersionInformation?)

    /// What is open of it; the handle's own number is not of `MountedFileSystem.handles`.
    final class Opened: Sendable {
        let number: InodeNumber
        let content: Content
        let readAhead = Mutex<ReadAhead>(ReadAhead())
        enum Content: Sendable {
            /// The names in `.boxfs` or in a removed folder, or a file's versions.
            case list([Entry])
            /// A listing of the tree's folder under way, and what was removed from it.
            case folder(HandleID, removed: [Entry])
            case file(FileContent, of: InodeNumber)
        }
        init(_ number: InodeNumber, _ content: Content) { (self.number, self.content) = (number, content) }

        /// An open version's bytes, and the file that it is of.
        func file() throws(FileSystemError) -> (content: FileContent, of: InodeNumber) {
            guard case .file(let content, let inode) = content else { throw .isDirectory }
            return (content, inode)
        }
    }

    private struct State {
        var next = VersionsFolder.firstNumber
        var numbers: [Place: InodeNumber] = [:]
        var known: [InodeNumber: Known] = [:]
        var opened: [HandleID: Opened] = [:]
    }
    private let state = Mutex(State())
    static let firstNumber: UInt64 = 1 << 62

    /// The number of a place. Somebody has to hold it: `look` or a listing of its folder.
    func number(_ place: Place, _ version: VersionInformation? = nil) -> InodeNumber {
        state.withLock { state in
            if let number = state.numbers[place] { return number }
            let number = InodeNumber(rawValue: state.next)
            state.next += 1
            state.numbers[place] = number
            state.known[number] = Known(place: place, version: version)
            return number
        }
    }

    func look(_ number: InodeNumber) { state.withLock { $0.known[number]?.lookups += 1 } }

    func forget(_ number: InodeNumber, _ count: UInt64) {
        state.withLock { state in
            guard var known = state.known[number] else { return }
            known.lookups -= min(count, known.lookups)
            state.known[number] = known.lookups == 0 ? nil : known
            if known.lookups == 0 { state.numbers[known.place] = nil }
        }
    }

    func known(_ number: InodeNumber) throws(FileSystemError) -> Known {
        guard let known = state.withLock({ $0.known[number] }) else { throw .stale }
        return known
    }

    func open(_ number: InodeNumber, _ content: Opened.Content) -> HandleID {
        state.withLock { state in
            let handle = HandleID(rawValue: state.next)
            state.next += 1
            state.opened[handle] = Opened(number, content)
            return handle
        }
    }

    func opened(_ handle: HandleID) throws(FileSystemError) -> Opened {
        guard let opened = state.withLock({ $0.opened[handle] }) else { throw .badHandle }
        return opened
    }

    func close(_ handle: HandleID) -> Opened? { state.withLock { $0.opened.removeValue(forKey: handle) } }

    var openCount: Int { state.withLock { $0.opened.count } }
}

extension InodeNumber {
    /// Belongs to `.boxfs`.
    var isOfVersions: Bool { (VersionsFolder.firstNumber..<VersionsFolder.firstNumber << 1).contains(rawValue) }
}

extension HandleID {
    var isOfVersions: Bool { (VersionsFolder.firstNumber..<VersionsFolder.firstNumber << 1).contains(rawValue) }
}

extension TrashItem {
    var name: String { path.split(separator: "/").last.map(String.init) ?? path }

    /// For one whose name is taken: `note (removed 2026-01-02T03.04.05Z).txt`.
    var nameWithTime: String {
        let dot = name.dropFirst().lastIndex(of: ".") ?? name.endIndex
        return "\(name[..<dot]) (removed \(deleted.iso8601.replacing(":", with: ".")))\(name[dot...])"
    }
}

extension VersionInformation {
    /// Its file's name in the folder of versions: when it was made, and the end of its identifier, by which `boxfs restore --version` knows it.
    /// The extension tells programs what it is: `2026-01-02T03.04.05Z-0123456789ab.txt`.
    func fileName(of name: String) -> String {
        let dot = name.dropFirst().lastIndex(of: ".")
        let time = created.iso8601.replacing(":", with: ".")
        let end = dot.map { String(name[$0...]) } ?? ""
        return "\(time)-\(id.description.suffix(12))" + (end.utf8.count > 200 ? "" : end)
    }
}
