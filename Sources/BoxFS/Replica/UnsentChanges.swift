import Foundation
import Glibc
import GRDB
import Shared

/// What a shared folder that is being left holds and the server does not have. Paths are from the folder's root.
struct UnsentChanges: Sendable {
    /// With new content, or new and empty. Each is pinned by `uses`.
    var files: [Tree.UnsentFile] = []
    var folders: [String] = []
    var symlinks: [(path: String, target: String)] = []
    /// What no file can show, a sentence each: names and attributes of what the server has.
    var others: [String] = []

    var isEmpty: Bool { files.isEmpty && folders.isEmpty && symlinks.isEmpty && others.isEmpty }

    /// The file that lists `others`.
    static let listName = "not sent.txt"

    /// What was kept in a folder, in words. At least one thing was.
    func summary(in folder: String, list: String?) -> String {
        func count(_ number: Int, _ one: String, _ many: String) -> String? { number == 0 ? nil : number == 1 ? "one \(one)" : "\(number) \(many)" }
        let kept = [
            count(files.count, "file", "files"), count(folders.count, "folder", "folders"), count(symlinks.count, "symbolic link", "symbolic links"),
        ].compactMap { $0 }
        var text = ""
        if let last = kept.last {
            let all = kept.count == 1 ? last : kept.dropLast().joined(separator: ", ") + " and " + last
            let isOne = files.count + folders.count + symlinks.count == 1
            text = "\(all) with changes that were not sent \(isOne ? "is" : "are") kept in \(folder)."
        }
        if let list, let number = count(others.count, "change of names or attributes", "changes of names or attributes") {
            text += "\(text.isEmpty ? number : " " + number.prefix(1).uppercased() + number.dropFirst()) that \(others.count == 1 ? "was" : "were") not sent \(others.count == 1 ? "is" : "are") listed in \(list)."
        }
        return text
    }
}

extension Tree {
    struct UnsentFile: Sendable { let inode: Inode, path: String }

    /// Under the lock.
    func unsentChanges(of namespace: Namespace) throws(FileSystemError) -> UnsentChanges {
        let records = Batch.withoutTemporaries(try database.read { try LogRecord.fetch($0, namespace.number, limit: .max) })
        var unsent = UnsentChanges(), files: Set<InodeNumber> = [], created: Set<NodeID> = [], said: Set<String> = []
        for inode in inodes.values where inode.namespace == namespace.number && inode.hasUnloggedWrites { files.insert(inode.number) }
        for record in records {
            switch record.kind {
            case .content: files.insert(record.inode)
            case .create:
                created.insert(record.node)
                guard let inode = try? inode(record.inode), inode.links > 0, let path = unsentPath(inode.number, below: namespace.root) else { continue }
                switch FileType(mode: inode.mode) {
                case .regular: files.insert(inode.number)
                case .directory: unsent.folders.append(path)
                case .symlink: unsent.symlinks.append((path, inode.target ?? ""))
                default: unsent.others.append("made the special file \(path)")
                }
            default:
                guard !created.contains(record.node) || record.kind == .link, let text = sentence(record, below: namespace.root) else { continue }
                if said.insert(text).inserted { unsent.others.append(text) }
            }
        }
        unsent.files = files.sorted { $0.rawValue < $1.rawValue }.compactMap { unsentFile($0, below: namespace.root) }
        return unsent
    }

    func unsentFile(_ number: InodeNumber, below root: InodeNumber) -> UnsentFile? {
        guard let inode = try? inode(number), inode.isRegular, inode.links > 0, let path = try? path(of: number, below: root).path else { return nil }
        inode.uses += 1
        return UnsentFile(inode: inode, path: path.isEmpty ? "file" : path)
    }

    /// nil for what stands nowhere below the root any more.
    private func unsentPath(_ number: InodeNumber, below root: InodeNumber) -> String? {
        guard let (path, top) = try? path(of: number, below: root), top == root, !path.isEmpty else { return nil }
        return path
    }

    /// A change that is no file: nil for times, which every other change moves.
    private func sentence(_ record: LogRecord, below root: InodeNumber) -> String? {
        func place(_ parent: NodeID?, _ name: String?) -> String {
            let name = name ?? "?"
            guard let parent, let directory = (try? inode(of: parent)) ?? nil else { return name }
            if directory.number == root { return name }
            return unsentPath(directory.number, below: root).map { "\($0)/\(name)" } ?? name
        }
        let here = place(record.parent, record.name), there = place(record.otherParent, record.otherName)
        let itself = unsentPath(record.inode, below: root)
        switch record.kind {
        case .rename: return "renamed \(here) to \(there)"
        case .exchange: return "exchanged \(here) and \(there)"
        case .remove: return "removed \(here)"
        case .link: return "made the hard link \(here)"
        case .setattr:
            let isSaid = !record.mask.isDisjoint(with: [.mode, .uid, .gid])
            return isSaid ? itself.map { "changed owner or permissions of \($0)" } : nil
        case .xattr: return itself.map { "changed the attribute \(record.attribute ?? "?") of \($0)" }
        case .create, .content: return nil
        }
    }
}
