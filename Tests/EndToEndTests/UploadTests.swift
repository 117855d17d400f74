import Foundation
import Glibc
import Testing
import TestSupport

/// Large uploads that are interrupted.
@Suite(.serialized) struct UploadTests {
    enum Interruption: CaseIterable { case mountKilled, connectionsCut, serverKilled }

    /// What arrived before an interruption does not travel again, and no session is left over.
    @Test(arguments: Interruption.allCases) func anInterruptedUploadGoesOnWhereItWas(_ interruption: Interruption) throws {
        let drive = try Drive()
        defer { drive.end() }
        let proxy = try FaultProxy(to: drive.port)
        defer { proxy.end() }
        let mount = try drive.mount("one", through: proxy)
        var random = SeededGenerator("interrupted upload")
        let bytes = random.bytes(64 << 20)
        proxy.fault = .throttle(bytesPerSecond: 6 << 20)
        try mount.write("large", bytes)
        // Four chunks of 4 MiB travel at a time: eight have arrived, or nearly.
        try eventually("a part is sent") { proxy.sent.load(ordering: .relaxed) > 40 << 20 }
        switch interruption {
        case .mountKilled:
            mount.kill()
            proxy.fault = .none
            try mount.start()
        case .connectionsCut:
            proxy.fault = .refuse
            usleep(200_000)
            proxy.fault = .none
        case .serverKilled:
            drive.stopServer(SIGKILL)
            proxy.fault = .none
            try drive.startServer()
        }
        let before = proxy.sent.load(ordering: .relaxed)
        try mount.flush()
        let after = proxy.sent.load(ordering: .relaxed) - before
        print("interrupted upload: \(interruption), \(before >> 20) MiB before, \(after >> 20) MiB after")
        #expect(after < 44 << 20)
        #expect(try drive.mount("two").read("large") == bytes)
        #expect(try drive.query("SELECT count(*) FROM uploads") == [["0"]])
    }

    /// A copy within the drive sends no chunk, as the server has them; it does if they are gone there by then.
    @Test func aCopyOfWhatIsGoneElsewhereIsSent() throws {
        let drive = try Drive()
        defer { drive.end() }
        let proxy = try FaultProxy(to: drive.port)
        defer { proxy.end() }
        let one = try drive.mount("one", through: proxy), two = try drive.mount("two")
        var random = SeededGenerator("a copy of what is gone")
        let bytes = random.bytes(5 << 20)
        try one.write("source", bytes)
        try one.flush()
        try eventually("it is seen elsewhere") { two.read("source") == bytes }
        proxy.fault = .refuse
        try one.copyWithin("source", to: "target")
        #expect(unlink(two("source")) == 0)
        try two.flush()
        #expect(try two.boxfs(["trash", "purge", "--all", "--mount", two.path]).status == 0)
        let collected = try run(Drive.binaries + "/boxfs-server", ["gc", "--grace", "0", "--data", drive.root + "/data"])
        #expect(collected.status == 0, "\(collected.output)")
        #expect(try drive.chunkBytes() == 0)
        proxy.fault = .none
        try one.flush()
        try eventually("it is seen elsewhere") { two.read("target") == bytes }
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
    }
}
