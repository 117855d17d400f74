import Glibc
import Shared

// The calls about `.boxfs` (VersionsFolder). Those that would change something end in `Tree.inode`, which answers EROFS.
extension MountedFileSystem {
    /// - Returns: nil where the name stands for nothing of `.boxfs`. A file of that name in the tree, made elsewhere, comes first.
    func lookupVersions(_ parent: InodeNumber, _ name: String) throws(FileSystemError) -> Attributes? {
        guard parent.isOfVersions || VersionsFolder.stands(in: parent, name) else { return nil }
        let number: InodeNumber
        switch parent == .root ? nil : try versions.known(parent).place {
        case nil:
            let isTaken = try tree.lock.withLock { () throws(FileSystemError) in try tree.entry(.root, name) != nil }
            if isTaken { return nil }
            number = versions.number(.top)
        case .top:
            guard name == VersionsFolder.entryName else { throw .notFound }
            number = versions.number(.folder(.root))
        case .folder(let folder):
            let living = try tree.lock.withLock { () throws(FileSystemError) -> VersionsFolder.Place? in
                let directory = try tree.directory(folder)
                guard let number = try tree.entry(folder, name) else {
                    if directory.hydration != .complete { throw .missing(.directory(folder)) }
                    return nil
                }
                guard let place = Self.place(of: number, mode: try tree.inode(number).mode) else { throw .notFound }
                return place
            }
            if let living { number = versions.number(living) } else { number = try find(name, in: removed(from: folder)) }
        case .removedFolder(let folder, let below): number = try find(name, in: removed(from: folder, below))
        case .file(let file): number = try find(name, in: list(file))
        case .removedFile(let file, let own, let below): number = try find(name, in: list(file, own, below))
        case .version: throw .notDirectory
        }
        versions.look(number)
        return try versionsAttributes(number)
    }

    private func find(_ name: String, in entries: [VersionsFolder.Entry]) throws(FileSystemError) -> InodeNumber {
        guard let found = entries.first(where: { $0.name == name }) else { throw .notFound }
        return versions.number(found.place, found.version)
    }

    /// Folders and regular files have a place in it.
    private static func place(of number: InodeNumber, mode: UInt32) -> VersionsFolder.Place? {
        switch FileType(mode: mode) {
        case .directory: .folder(number)
        case .regular: .file(number)
        default: nil
        }
    }

    /// The owner and the permissions are those of the file now, but for writing.
    func versionsAttributes(_ number: InodeNumber) throws(FileSystemError) -> Attributes {
        let known = try versions.known(number)
        let original: InodeNumber = switch known.place {
        case .top: .root
        case .folder(let inode), .file(let inode), .version(_, let inode), .removedFolder(_, let inode), .removedFile(_, _, let inode): inode
        }
        var attributes = try tree.lock.withLock { () throws(FileSystemError) -> Attributes in self.attributes(try tree.inode(original)) }
        let readers = attributes.mode & 0o444
        attributes.inode = number
        attributes.links = 1
        if let version = known.version {
            attributes.mode = FileType.regular.rawValue | readers
            (attributes.size, attributes.blocks) = (version.size, (version.size + 511) / 512)
            (attributes.modified, attributes.accessed, attributes.changed) = (version.modified, version.modified, version.created)
        } else {
            attributes.mode = FileType.directory.rawValue | readers | readers >> 2
            (attributes.size, attributes.blocks) = (0, 0)
        }
        return attributes
    }

    private func list(_ file: InodeNumber) throws(FileSystemError) -> [VersionsFolder.Entry] {
        let (node, name) = try tree.lock.withLock { () throws(FileSystemError) in (try tree.inode(file).id, try tree.place(of: file)?.name ?? "") }
        return try list(node, name, file)
    }

    private func list(_ node: NodeID, _ name: String, _ inode: InodeNumber) throws(FileSystemError) -> [VersionsFolder.Entry] {
        guard let found = fetcher.versions(of: node) else { throw .missing(.versions(node, of: inode)) }
        return found.map { ($0.fileName(of: name), .version($0.id, of: inode), $0) }
    }

    // MARK: What was removed

    private func removed(from folder: InodeNumber) throws(FileSystemError) -> [VersionsFolder.Entry] {
        let node = try tree.lock.withLock { () throws(FileSystemError) in try tree.inode(folder).id }
        return try removed(from: node, folder, livingIn: folder)
    }

    /// - Parameters:
    ///   - below: a folder of the tree.
    ///   - livingIn: the folder itself, if it lives: names in it are taken.
    private func removed(from folder: NodeID, _ below: InodeNumber, livingIn: InodeNumber? = nil) throws(FileSystemError) -> [VersionsFolder.Entry] {
        guard let items = fetcher.removed(from: folder) else { throw .missing(.removed(from: folder, of: below)) }
        var taken: Set<String> = []
        if let livingIn, !items.isEmpty {
            for item in items {
                if try tree.lock.withLock({ () throws(FileSystemError) in try tree.entry(livingIn, item.name) }) != nil { taken.insert(item.name) }
            }
        }
        return items.compactMap { item -> VersionsFolder.Entry? in
            let name = taken.contains(item.name) ? item.nameWithTime : item.name
            guard name.utf8.count <= EntryName.maximumByteCount, taken.insert(name).inserted else { return nil }
            return switch FileType(mode: item.mode) {
            case .directory: (name, .removedFolder(item.node, below: below), nil)
            case .regular: (name, .removedFile(item.node, name: item.name, below: below), nil)
            default: nil
            }
        }
    }

    func openVersion(_ number: InodeNumber, flags: Int32) throws(FileSystemError) -> OpenFile {
        guard flags & O_ACCMODE == O_RDONLY, flags & O_TRUNC == 0 else { throw .readOnly }
        let known = try versions.known(number)
        guard case .version(let id, let file) = known.place, let version = known.version else { throw .isDirectory }
        guard let chunks = fetcher.takeContent(of: id) else { throw .missing(.version(id, of: file)) }
        guard let slots = SlotTable(chunks) else { throw .notSupported }
        let content = FileContent(size: version.size, slots: slots, cache: tree.cache, store: tree.segments)
        return OpenFile(handle: versions.open(number, .file(content, of: file)), keepCache: true)
    }

    func openVersionsFolder(_ number: InodeNumber) throws(FileSystemError) -> HandleID {
        switch try versions.known(number).place {
        case .top: return versions.open(number, .list([(VersionsFolder.entryName, .folder(.root), nil)]))
        case .folder(let folder):
            // What is missing of the living is asked for first.
            let listing = try opendir(folder)
            do throws(FileSystemError) { return versions.open(number, .folder(listing, removed: try removed(from: folder))) } catch {
                releasedir(listing)
                throw error
            }
        case .removedFolder(let folder, let below): return versions.open(number, .list(try removed(from: folder, below)))
        case .file(let file): return versions.open(number, .list(try list(file)))
        case .removedFile(let file, let name, let below): return versions.open(number, .list(try list(file, name, below)))
        case .version: throw .notDirectory
        }
    }

    func readVersionsFolder(_ handle: HandleID, offset: Int64, plus: Bool, _ take: (DirectoryEntry) -> Bool) throws(FileSystemError) {
        let opened = try versions.opened(handle)
        let own = try versionsAttributes(opened.number)
        var failure: FileSystemError?
        /// Takes an entry of the place, held by the kernel if it comes with its attributes.
        func give(_ name: String, _ place: VersionsFolder.Place, _ version: VersionInformation?, next: Int64) -> Bool {
            let number = versions.number(place, version)
            versions.look(number)
            do throws(FileSystemError) {
                let isTaken = take(DirectoryEntry(name: name, attributes: try versionsAttributes(number), nextOffset: next))
                if !isTaken || !plus { versions.forget(number, 1) }
                return isTaken
            } catch {
                versions.forget(number, 1)
                failure = error
                return false
            }
        }
        switch opened.content {
        case .file: throw .notDirectory
        case .list(let entries):
            for at in Int(max(0, offset))..<entries.count + 2 {
                let isTaken = at < 2
                    ? take(DirectoryEntry(name: at == 0 ? "." : "..", attributes: own, nextOffset: Int64(at) + 1))
                    : give(entries[at - 2].name, entries[at - 2].place, entries[at - 2].version, next: Int64(at) + 1)
                if !isTaken { break }
            }
        case .folder(let listing, let removed):
            var from = offset, isEnough = false
            while !isEnough, from < Self.removedOffset {
                var entries: [DirectoryEntry] = []      // given once the tree's lock is free again
                try readdir(listing, offset: from, plus: false) { entry in
                    guard entries.count < Self.versionsListed else { return false }
                    entries.append(entry)
                    return true
                }
                guard let last = entries.last else {
                    from = Self.removedOffset
                    break
                }
                from = last.nextOffset
                for entry in entries where !isEnough {
                    if entry.name == "." || entry.name == ".." {
                        isEnough = !take(DirectoryEntry(name: entry.name, attributes: own, nextOffset: entry.nextOffset))
                    } else if let place = Self.place(of: entry.attributes.inode, mode: entry.attributes.mode) {
                        isEnough = !give(entry.name, place, nil, next: entry.nextOffset)
                    }
                }
            }
            while !isEnough, case let at = Int(from - Self.removedOffset), removed.indices.contains(at) {
                from += 1
                isEnough = !give(removed[at].name, removed[at].place, nil, next: from)
            }
        }
        if let failure, failure != .stale { throw failure }
    }

    /// Where what was removed begins in a listing.
    private static let removedOffset: Int64 = 1 << 40

    /// Entries of a folder that are looked at together.
    private static let versionsListed = 256

    func closeVersions(_ handle: HandleID) {
        if case .folder(let listing, _) = versions.close(handle)?.content { releasedir(listing) }
    }
}
