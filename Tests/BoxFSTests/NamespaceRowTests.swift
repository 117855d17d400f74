import Foundation
import Shared
import Testing
@testable import BoxFS

/// What the next process knows of a shared folder that was being left when the one before it ended.
@Suite struct NamespaceRowTests {
    private func reason(_ comesBack: Namespace.Return?) throws -> String {
        let folder = NSTemporaryDirectory() + "/boxfs-namespaces-\(UUID())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let left = Namespace(number: 2, id: .make(), root: InodeNumber(rawValue: 7), junction: .make(), role: .editor, cursor: 9)
        left.name = "docs"
        left.comesBack = comesBack
        left.isLost = true
        for isFirst in [true, false] {
            let database = try ReplicaDatabase(path: folder + "/replica.db")
            defer { database.close() }
            if isFirst {
                _ = try database.change { try left.save($0) }
                try database.commit { _ in }
            } else {
                let found = try #require(try database.read { try Namespace.fetchAll($0) }.first { $0.number == 2 })
                #expect(found.isLost && found.comesBack?.directory == comesBack?.directory && found.comesBack?.junction == comesBack?.junction)
                return found.reasonOfLeaving
            }
        }
        return ""
    }

    @Test func theReasonOfLeavingOutlivesTheProcess() throws {
        #expect(try reason(nil) == "You are no longer in the shared folder docs")
        #expect(try reason(.init(directory: .root, junction: .make(), isGivenAgain: true)) == "You were not in the shared folder docs for a while")
        #expect(try reason(.init(directory: .root, junction: .make(), isGivenAgain: false)) == "The shared folder docs may only be read now")
    }
}
