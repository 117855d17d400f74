import Foundation
import Shared
import Testing
import TestSupport
@testable import Server

/// Several people write, share, invite, leave and are put out at random. An oracle, which knows of directories and of rules and nothing of
/// tables, says who may do what, and which names, nodes and contents each may learn of. `BOXFS_SEED` repeats a run.
@Suite struct SharingRandomTests {
    private struct Directory { var namespace: NamespaceID, parent: NodeID?, name: String }
    private struct File { var parent: NodeID, name: String, version: VersionID, isRemoved = false }

    private final class World {
        var generator: SeededGenerator
        let fixture: DriveFixture
        let names = ["ada", "bob", "cyd", "dan"]
        var devices: [String: TestDevice] = [:]
        var directories: [NodeID: Directory] = [:]
        var files: [NodeID: File] = [:]
        /// A dictionary's order is another in each run.
        var directoryOrder: [NodeID] = [], fileOrder: [NodeID] = []
        /// Every place that anything ever had.
        var places: [(directory: NodeID, name: String)] = []
        /// Which file a text was written into.
        var texts: [(text: String, file: NodeID)] = []
        /// In which directory of each member's home a shared folder stands, by its root.
        var standing: [NodeID: [String: NodeID]] = [:]
        var sharedNames: [NodeID: String] = [:]
        /// Names of shared folders that somebody was in: the own home's past tells them for ever.
        var remembered: [String: Set<String>] = [:]
        var roles: [NamespaceID: [String: Role]] = [:]
        /// Shared namespaces with their roots, by age.
        var shared: [(namespace: NamespaceID, root: NodeID)] = []
        var count = 0

        init(_ seed: UInt64) async throws {
            generator = SeededGenerator(state: seed)
            fixture = try DriveFixture()
            for name in names {
                try await fixture.account(name)
                let device = try await fixture.device(name, "desk of \(name)")
                devices[name] = device
                add(device.root, Directory(namespace: device.namespace, parent: nil, name: ""))
                roles[device.namespace] = [name: .owner]
            }
        }

        func add(_ id: NodeID, _ directory: Directory) {
            directories[id] = directory
            directoryOrder.append(id)
        }
        func pickDirectory(_ condition: (Directory) -> Bool) -> (NodeID, Directory)? { pick(directoryOrder.map { ($0, directories[$0]!) }.filter { condition($0.1) }) }
        func pickFile() -> (NodeID, File)? { pick(fileOrder.map { ($0, files[$0]!) }.filter { !$0.1.isRemoved }) }
        func pick<T>(_ things: some Collection<T>) -> T? { things.randomElement(using: &generator) }
        func fresh() -> String {
            count += 1
            return "nm\(count)x"
        }
        func role(_ who: String, _ namespace: NamespaceID) -> Role? { roles[namespace]?[who] }
        func device(_ who: String, _ namespace: NamespaceID) -> TestDevice {
            let own = devices[who]!, root = shared.first { $0.namespace == namespace }?.root ?? own.root
            return TestDevice(fixture: fixture, session: own.session, namespace: namespace, root: root, name: own.name)
        }
        func home(of file: File) -> NamespaceID { directories[file.parent]!.namespace }
        func path(_ directory: NodeID) -> String {
            var parts: [String] = [], at = directory
            while let here = directories[at], let parent = here.parent {
                parts.append(here.name)
                at = parent
            }
            return parts.reversed().joined(separator: "/")
        }
        func isInside(_ directory: NodeID, _ ancestor: NodeID) -> Bool {
            var at: NodeID? = directory
            while let here = at {
                if here == ancestor { return true }
                at = directories[here]?.parent
            }
            return false
        }
    }

    private func outcome(_ body: () async throws -> Void) async throws -> Bool {
        do {
            try await body()
            return true
        } catch let error as DriveError {
            switch error {
            case .forbidden, .notFound, .badRequest: return false
            default: throw error
            }
        }
    }

    @Test func nobodyLearnsWhatIsNotTheirs() async throws {
        let seed = SeededGenerator.seed()
        let world = try await World(seed)
        // Some seeds share little: they go on.
        for step in 0..<4000 where step < 400 || world.shared.count < 3 {
            try await self.step(world)
            world.fixture.clock.advance(seconds: Int64.random(in: 0...40, using: &world.generator))
            if step % 20 == 19 { for name in world.names { try await look(world, name) } }
        }
        try await world.fixture.expectClean()
        #expect(world.shared.count > 2, "folders were shared")
    }

    // MARK: Steps

    private func step(_ world: World) async throws {
        let who = world.pick(world.names)!
        switch Int.random(in: 0..<20, using: &world.generator) {
        case 0..<3: try await makeDirectory(world, who)
        case 3..<9: try await write(world, who)
        case 9..<11: try await move(world, who)
        case 11: try await remove(world, who)
        case 12..<14: try await share(world, who)
        case 14..<18: try await invite(world, who)
        case 18: try await putOut(world, who)
        default: try await transfer(world, who)
        }
    }

    /// A directory of a random namespace, whether the person may write there or not.
    private func target(_ world: World) -> (NodeID, Directory) {
        world.pickDirectory { _ in true }!
    }

    private func makeDirectory(_ world: World, _ who: String) async throws {
        let (parent, directory) = target(world), name = world.fresh(), device = world.device(who, directory.namespace), node = device.node(.directory)
        let may = world.role(who, directory.namespace).map { $0 >= .editor } ?? false
        let did = try await outcome { try await device.commit([.create(node: node, parent: parent, name: name)]) }
        #expect(did == may, "\(who) makes a directory")
        guard did else { return }
        world.add(node.id, Directory(namespace: directory.namespace, parent: parent, name: name))
        world.places.append((parent, name))
    }

    private func write(_ world: World, _ who: String) async throws {
        let text = "secret \(world.fresh())"
        if Bool.random(using: &world.generator), let (id, file) = world.pickFile() {
            let device = world.device(who, world.home(of: file)), version = VersionID.make()
            let may = world.role(who, device.namespace).map { $0 >= .editor } ?? false
            let did = try await outcome { try await device.commit([device.write(id, base: file.version, text, as: version)], chunks: [Array(text.utf8)]) }
            #expect(did == may, "\(who) writes a file")
            if did {
                world.files[id]!.version = version
                world.texts.append((text, id))
            }
            return
        }
        let (parent, directory) = target(world), name = world.fresh(), device = world.device(who, directory.namespace), node = device.node(.regular)
        let version = VersionID.make(), may = world.role(who, directory.namespace).map { $0 >= .editor } ?? false
        let did = try await outcome {
            try await device.commit([.create(node: node, parent: parent, name: name), device.write(node.id, base: nil, text, as: version)], chunks: [Array(text.utf8)])
        }
        #expect(did == may, "\(who) makes a file")
        guard did else { return }
        world.fileOrder.append(node.id)
        world.files[node.id] = File(parent: parent, name: name, version: version)
        world.places.append((parent, name))
        world.texts.append((text, node.id))
    }

    /// Within a namespace it works; across a border nothing happens.
    private func move(_ world: World, _ who: String) async throws {
        guard let (id, file) = world.pickFile() else { return }
        let (parent, directory) = target(world), name = world.fresh(), home = world.home(of: file), device = world.device(who, home)
        guard world.role(who, home).map({ $0 >= .editor }) ?? false else { return }
        let results = try await device.commit([device.rename(id, file.name, to: name, from: file.parent, in: parent)])
        let isWithin = directory.namespace == home
        #expect((results[0].outcome == .applied) == isWithin, "\(who) moves a file")
        guard isWithin else { return }
        (world.files[id]!.parent, world.files[id]!.name) = (parent, name)
        world.places.append((parent, name))
    }

    private func remove(_ world: World, _ who: String) async throws {
        guard let (id, file) = world.pickFile(), world.role(who, world.home(of: file)).map({ $0 >= .editor }) ?? false else { return }
        let device = world.device(who, world.home(of: file))
        #expect(try await device.commit([device.remove(id, file.name, from: file.parent, version: file.version)])[0].outcome == .applied)
        world.files[id]!.isRemoved = true
    }

    private func share(_ world: World, _ who: String) async throws {
        let device = world.devices[who]!
        guard let (id, directory) = world.pickDirectory({ $0.namespace == device.namespace && $0.parent != nil }), world.shared.count < 12 else { return }
        let holdsShared = world.standing.values.contains { $0[who].map { world.isInside($0, id) } ?? false }
        var made: Share?
        let did = try await outcome { made = try await device.drive.share(device.session, device.namespace, world.path(id)) }
        #expect(did == !holdsShared, "\(who) shares \(world.path(id))")
        guard let made else { return }
        world.shared.append((made.namespace, id))
        world.roles[made.namespace] = [who: .owner]
        for below in world.directories.keys where world.isInside(below, id) { world.directories[below]!.namespace = made.namespace }
        // Its own name stays in the home.
        world.directories[id]!.parent = nil
        world.standing[id] = [who: directory.parent!]
        world.sharedNames[id] = directory.name
    }

    private func invite(_ world: World, _ who: String) async throws {
        guard let (namespace, root) = world.pick(world.shared), let guest = world.pick(world.names),
              let role = world.pick([Role.viewer, .editor, .manager]) else { return }
        let own = world.role(who, namespace), current = world.role(guest, namespace)
        let may = (own ?? .viewer) >= .manager && own != nil && guest != who && current != .owner
            && (own == .owner || role < .manager && (current ?? .viewer) < .manager)
        let session = world.devices[who]!.session
        let did = try await outcome { try await world.fixture.drive.setMember(session, namespace, guest, role) }
        #expect(did == may, "\(who) (\(own?.rawValue ?? "nobody")) makes \(guest) (\(current?.rawValue ?? "nobody")) a \(role)")
        guard did else { return }
        world.roles[namespace]![guest] = role
        if current == nil {
            world.standing[root]![guest] = world.devices[guest]!.root
            world.remembered[guest, default: []].insert(world.sharedNames[root]!)
        }
    }

    private func putOut(_ world: World, _ who: String) async throws {
        guard let (namespace, root) = world.pick(world.shared), let guest = world.pick(world.names) else { return }
        let own = world.role(who, namespace), current = world.role(guest, namespace)
        let may = guest == who ? own != nil && own != .owner
            : own != nil && current != nil && current != .owner && (own == .owner || own == .manager && current! < .manager)
        let session = world.devices[who]!.session
        let did = try await outcome { try await world.fixture.drive.removeMember(session, namespace, guest) }
        #expect(did == may, "\(who) puts \(guest) out")
        if did { (world.roles[namespace]![guest], world.standing[root]![guest]) = (nil, nil) }
    }

    private func transfer(_ world: World, _ who: String) async throws {
        guard let (namespace, _) = world.pick(world.shared), let guest = world.pick(world.names) else { return }
        let may = world.role(who, namespace) == .owner && guest != who && world.role(guest, namespace) != nil
        let session = world.devices[who]!.session
        let did = try await outcome { try await world.fixture.drive.transfer(session, namespace, to: guest) }
        #expect(did == may, "\(who) gives the folder to \(guest)")
        if did { (world.roles[namespace]![who], world.roles[namespace]![guest]) = (.manager, .owner) }
    }

    // MARK: What a person can learn

    private func look(_ world: World, _ who: String) async throws {
        let drive = world.fixture.drive, session = world.devices[who]!.session
        let readable = Set(world.roles.filter { $0.value[who] != nil }.keys)
        var seen = ""
        func add(_ value: some Encodable) throws { seen += String(decoding: try JSONEncoder().encode(value), as: UTF8.self) + "\n" }
        #expect(Set(try await drive.accountInformation(session).namespaces.map(\.id)) == readable)
        #expect(Set(try await drive.shares(session).map(\.namespace)) == readable.subtracting([session.home]))
        try add(try await drive.links(session))
        for namespace in world.roles.keys {
            let mayRead = readable.contains(namespace)
            func check(_ call: String, _ body: () async throws -> Void) async throws {
                #expect(try await outcome(body) == mayRead, "\(call) by \(who)")
            }
            try await check("changes") { try add(try await drive.changes(session, namespace, after: 0, limit: 2000)) }
            try await check("tree") { try add(try await drive.tree(session, namespace, after: nil, limit: 2000)) }
            try await check("trash") { try add(try await drive.trash(session, namespace, after: nil, limit: 2000)) }
            try await check("members") { try add(try await drive.members(session, namespace)) }
            try await check("conflicts") { try add(try await drive.conflicts(session, namespace)) }
            try await check("mass changes") { try add(try await drive.massChanges(session, namespace)) }
            try await check("information") { try add(try await drive.namespaceInformation(session, namespace)) }
            #expect(try await outcome { _ = try await drive.audit(session, namespace, AuditFilter()) } == (world.role(who, namespace) == .owner))
        }
        // Names.
        var allowed = Set(world.places.filter { readable.contains(world.directories[$0.directory]!.namespace) }.map(\.name))
        allowed.formUnion(world.remembered[who] ?? [])
        for (root, name) in world.sharedNames where readable.contains(world.directories[root]!.namespace) { allowed.insert(name) }
        let told = Set(seen.matches(of: /nm\d+x/).map { String($0.output) })
        #expect(told.subtracting(allowed) == [], "\(who) hears names of others")
        let living = world.files.values.filter { !$0.isRemoved && readable.contains(world.home(of: $0)) }.map(\.name)
        #expect(Set(living).subtracting(told) == [], "\(who) hears all that is there")
        // Contents: neither bytes, nor hashes, nor whether they are there.
        for (text, file) in world.texts.suffix(60) {
            let hash = SHA256.hash(Array(text.utf8)), home = world.home(of: world.files[file]!)
            #expect(readable.contains(home) || !seen.contains(hash.description), "\(who) learns a hash")
            let node = try await outcome { _ = try await drive.node(session, home, file) }
            #expect(node == readable.contains(home))
            for namespace in readable {
                let isHeld = home == namespace || world.texts.contains { $0.text == text && world.home(of: world.files[$0.file]!) == namespace }
                let found = try await drive.chunkLocations(session, namespace, [hash])[hash] != nil
                #expect(found == isHeld, "\(who) reads a chunk through \(namespace == session.home ? "the home" : "a shared folder")")
            }
        }
    }
}
