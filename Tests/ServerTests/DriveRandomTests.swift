import Foundation
import Shared
import Testing
import TestSupport
@testable import Server

/// Thousands of operations of two devices, most of them out of date, many senseless. Afterwards, and on the way, every count is right,
/// and a replica that only ever saw the feed shows the same tree. `BOXFS_SEED` repeats a run.
@Suite struct DriveRandomTests {
    /// What a mount keeps of the feed.
    struct Replica {
        var cursor: Int64 = 0
        var entries: [NodeID: [String: (node: NodeID, sequence: Int64)]] = [:]

        mutating func pull(_ device: TestDevice, limit: Int) async throws {
            while true {
                let page = try await device.drive.changes(device.session, device.namespace, after: cursor, limit: limit)
                for entry in page.entries.sorted(by: { $0.sequence < $1.sequence }) {
                    let current = entries[entry.parent]?[entry.name]
                    if let current, current.sequence > entry.sequence { continue }
                    if !entry.deleted {
                        entries[entry.parent, default: [:]][entry.name] = (entry.node, entry.sequence)
                    } else if current?.node == entry.node {
                        entries[entry.parent]?[entry.name] = nil
                    }
                }
                for node in page.nodes where node.deleted {
                    for (parent, names) in entries {
                        for (name, entry) in names where entry.node == node.id && entry.sequence < node.sequence { entries[parent]?[name] = nil }
                    }
                }
                // A node stands in as many places as the server counts: of one that was removed and came back elsewhere the feed tells the new
                // place alone (`FeedApplier.removeStalePlaces`).
                for node in page.nodes where !node.deleted {
                    let places = entries.flatMap { parent, names in names.filter { $0.value.node == node.id }.map { (parent, $0.key, $0.value.sequence) } }
                    for (parent, name, _) in places.sorted(by: { $0.2 < $1.2 }).dropLast(Int(node.links)) { entries[parent]?[name] = nil }
                }
                #expect(page.cursor >= cursor)
                #expect(!page.more || page.cursor > cursor, "a page brings the reader on")
                guard page.more, page.cursor > cursor else { return cursor = page.cursor }
                cursor = page.cursor
            }
        }

        /// The paths that can be reached, with their nodes.
        func paths(_ directory: NodeID, _ path: String = "") -> [String: NodeID] {
            var found: [String: NodeID] = [:]
            for (name, entry) in entries[directory] ?? [:] {
                found[path + "/" + name] = entry.node
                found.merge(paths(entry.node, path + "/" + name)) { first, _ in first }
            }
            return found
        }
    }

    private func paths(_ device: TestDevice) async throws -> [String: NodeID] {
        var replica = Replica(), after: String?
        repeat {
            let page = try await device.drive.tree(device.session, device.namespace, after: after, limit: 50)
            for entry in page.entries { replica.entries[entry.parent, default: [:]][entry.name] = (entry.node, entry.sequence) }
            after = page.next
        } while after != nil
        return replica.paths(device.root)
    }

    @Test func countsAndFeedHold() async throws {
        let seed = SeededGenerator.seed()
        let fixture = try DriveFixture()
        try await fixture.account("ada")
        let devices = [try await fixture.device("ada", "desk"), try await fixture.device("ada", "lap")]
        var world = World(generator: SeededGenerator(state: seed), root: devices[0].root)
        var replicas = [Replica(), Replica()], merges = 0
        for round in 0..<60 {
            for (index, device) in devices.enumerated() {
                var operations: [Shared.Operation] = [], bodies: [[UInt8]] = []
                for _ in 0..<Int.random(in: 1...40, using: &world.generator) { operations.append(world.draw(device, &bodies)) }
                let results = try await device.commit(operations, chunks: bodies)
                #expect(results.count == operations.count)
                merges += zip(operations, results).count { if case .content = $0 { $1.outcome == .merged } else { false } }
                if Bool.random(using: &world.generator) { try await replicas[index].pull(device, limit: 100) }
            }
            fixture.clock.advance(seconds: [1, 30, 90].randomElement(using: &world.generator)!)
            if round % 20 == 19 {
                try await fixture.expectClean()
                _ = try await devices[0].drive.collectGarbage(graceSeconds: 0)
                try await fixture.expectClean()
                let truth = try await paths(devices[0])
                for index in 0..<2 {
                    try await replicas[index].pull(devices[index], limit: 100)
                    let seen = replicas[index].paths(devices[0].root)
                    #expect(seen.filter { truth[$0.key] != $0.value } == [:], "the replica shows what is not there")
                    #expect(truth.filter { seen[$0.key] != $0.value } == [:], "the replica lacks what is there")
                }
            }
        }
        #expect(merges > 0, "edits met and merged")
    }

    /// What the devices believe: nodes, names and versions, of which many are gone by now.
    struct World {
        var generator: SeededGenerator
        var directories: [NodeID]
        var files: [NodeID] = []
        var places: [NodeID: (parent: NodeID, name: String)] = [:]
        var versions: [NodeID: VersionID] = [:]
        /// The versions before those: edits of them meet others.
        var olderVersions: [NodeID: VersionID] = [:]

        init(generator: SeededGenerator, root: NodeID) {
            self.generator = generator
            directories = [root]
        }

        private mutating func name() -> String { "n\(Int.random(in: 0..<12, using: &generator))" }
        /// Nine lines, one of them edited: two such often merge.
        private mutating func text() -> [UInt8] {
            var lines = (0..<9).map { "line \($0)\n" }
            lines[Int.random(in: 0..<9, using: &generator)] = "edited \(Int.random(in: 0..<40, using: &generator))\n"
            return Array(lines.joined().utf8)
        }
        private mutating func directory() -> NodeID { directories.randomElement(using: &generator)! }
        private mutating func any() -> NodeID { Bool.random(using: &generator) ? files.randomElement(using: &generator) ?? directory() : directory() }

        mutating func draw(_ device: TestDevice, _ bodies: inout [[UInt8]]) -> Shared.Operation {
            let time = device.fixture.clock.now
            switch Int.random(in: 0..<20, using: &generator) {
            case 0..<5:
                let node = device.node(.regular), parent = directory(), name = self.name()
                files.append(node.id)
                places[node.id] = (parent, name)
                return .create(node: node, parent: parent, name: name)
            case 5..<7:
                let node = device.node(.directory), parent = directory(), name = self.name()
                directories.append(node.id)
                places[node.id] = (parent, name)
                return .create(node: node, parent: parent, name: name)
            case 7..<12:
                let node = files.randomElement(using: &generator) ?? directory(), version = VersionID.make()
                let base = switch Int.random(in: 0..<8, using: &generator) {
                case 0, 1: VersionID?.none
                case 2, 3: olderVersions[node]
                default: versions[node]
                }
                olderVersions[node] = versions[node]
                versions[node] = version
                let isText = Bool.random(using: &generator)
                let body = isText ? text() : [UInt8](repeating: UInt8.random(in: 0..<40, using: &generator), count: Int.random(in: 1...64, using: &generator))
                bodies.append(body)
                let twice = !isText && Bool.random(using: &generator)
                return .content(
                    node: node, base: base, version: version, content: TestDevice.content(twice ? [body, body] : [body]), modified: time, changed: time)
            case 12..<15:
                let node = any(), place = places[node] ?? (device.root, name())
                return .remove(node: node, parent: place.0, name: place.1, version: versions[node], time: time)
            case 15..<18:
                let node = any(), place = places[node] ?? (device.root, name()), target = directory(), name = self.name()
                places[node] = (target, name)
                let replaced = Bool.random(using: &generator) ? places.first { $0.value == (target, name) && $0.key != node }?.key : nil
                return .rename(node: node, parent: place.0, name: place.1, toParent: target, toName: name, replaced: replaced, time: time)
            case 18:
                return .link(node: any(), parent: directory(), name: name(), time: time)
            default:
                let one = any(), other = any()
                let from = places[one] ?? (device.root, name()), to = places[other] ?? (device.root, name())
                return .exchange(node: one, parent: from.0, name: from.1, otherNode: other, otherParent: to.0, otherName: to.1, time: time)
            }
        }
    }
}
