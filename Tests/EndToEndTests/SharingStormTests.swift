import Foundation
import Glibc
import Testing
import TestSupport

/// Mounts of three accounts write into shared folders while roles change, people come and go, and mounts are away. Afterwards all members of
/// a folder see the same, nobody else sees it, and no content that somebody closed is lost. `BOXFS_SEED` repeats the draws.
@Suite(.serialized) struct SharingStormTests {
    private static let rounds = 60
    private final class World {
        let drive: Drive
        var generator = SeededGenerator("SharingStorm")
        let mounts: [(account: String, mount: Mount)]
        var isAway: Set<Int> = []
        /// What each mount wrote last into each of its files, by the file's own name.
        var texts: [String: String] = [:]
        var count = 0

        init() throws {
            drive = try Drive(seconds: 200)
            for name in ["bob", "cyd"] { try drive.addAccount(name) }
            let desk = try drive.mount("desk")
            for name in ["one", "two"] { try FileManager.default.createDirectory(atPath: desk(name), withIntermediateDirectories: true) }
            mounts = [("ann", desk), ("ann", try drive.mount("lap")), ("bob", try drive.mount("bob", account: "bob")), ("cyd", try drive.mount("cyd", account: "cyd"))]
            try desk.flush()
        }
    }

    /// Files and their contents below a folder; nil if it is not there.
    private func tree(_ path: String) -> [String: String]? {
        guard access(path, F_OK) == 0, let names = try? FileManager.default.subpathsOfDirectory(atPath: path) else { return nil }
        var found: [String: String] = [:]
        for name in names {
            var status = stat()
            guard lstat(path + "/" + name, &status) == 0 else { return nil }
            found[name] = status.st_mode & S_IFMT == S_IFDIR ? "/" : FileManager.default.contents(atPath: path + "/" + name).map { String(decoding: $0, as: UTF8.self) }
        }
        return found
    }

    private func write(_ world: World) {
        let index = world.mounts.indices.randomElement(using: &world.generator)!, mount = world.mounts[index].mount
        guard !world.isAway.contains(index), let folder = ["one", "two"].randomElement(using: &world.generator) else { return }
        let file = "\(folder)/f\(index)-\(Int.random(in: 0..<6, using: &world.generator))"
        world.count += 1
        let text = "text \(world.count) of mount \(index);"
        switch Int.random(in: 0..<10, using: &world.generator) {
        case 0..<7:
            let descriptor = open(mount(file), O_WRONLY | O_CREAT | O_TRUNC, 0o644)
            guard descriptor >= 0 else { return }
            let isWritten = Glibc.write(descriptor, text, text.utf8.count) == text.utf8.count
            if close(descriptor) == 0, isWritten { world.texts[file] = text }
        case 7:
            if unlink(mount(file)) == 0 { world.texts[file] = nil }
        case 8: mkdir(mount("\(folder)/d\(Int.random(in: 0..<3, using: &world.generator))"), 0o755)
        default:
            // Another's file: both are edits of it.
            let other = "\(folder)/f\(world.mounts.indices.randomElement(using: &world.generator)!)-0"
            rename(mount(other), mount("\(folder)/d\(Int.random(in: 0..<3, using: &world.generator))/moved \(world.count)"))
        }
    }

    private func change(_ world: World) throws {
        let folder = ["one", "two"].randomElement(using: &world.generator)!, guest = ["bob", "cyd"].randomElement(using: &world.generator)!
        let desk = world.mounts[0].mount
        switch Int.random(in: 0..<4, using: &world.generator) {
        case 0: _ = try desk.boxfs(["share", "remove", desk(folder), guest])
        case 1: _ = try desk.boxfs(["share", "add", desk(folder), guest, "--role", "viewer"])
        default: _ = try desk.boxfs(["share", "add", desk(folder), guest, "--role", "editor"])
        }
    }

    private func comeAndGo(_ world: World) throws {
        let index = Int.random(in: 1..<world.mounts.count, using: &world.generator), mount = world.mounts[index].mount
        if world.isAway.remove(index) != nil { return try mount.start() }
        if Bool.random(using: &world.generator) { mount.kill() } else { _ = try mount.boxfs(["umount", mount.path, "--now"]); mount.process?.waitUntilExit() }
        world.isAway.insert(index)
    }

    @Test func allMembersSeeTheSameInTheEnd() throws {
        let world = try World()
        for _ in 0..<Self.rounds {
            for _ in 0..<Int.random(in: 1...8, using: &world.generator) { write(world) }
            switch Int.random(in: 0..<6, using: &world.generator) {
            case 0..<2: try change(world)
            case 2: try comeAndGo(world)
            default: usleep(UInt32.random(in: 0..<80_000, using: &world.generator))
            }
        }
        for index in world.isAway { try world.mounts[index].mount.start() }
        let desk = world.mounts[0].mount
        for (folder, guest, role) in [("one", "bob", "editor"), ("one", "cyd", "viewer"), ("two", "bob", "viewer")] {
            let added = try desk.boxfs(["share", "add", desk(folder), guest, "--role", role])
            try #require(added.status == 0, "\(added.output)")
        }
        _ = try desk.boxfs(["share", "remove", desk("two"), "cyd"])
        for (_, mount) in world.mounts { try mount.flush() }
        var last = ""
        do {
            try eventually("all see the same", seconds: 25) {
                for folder in ["one", "two"] {
                    let right = tree(desk(folder))
                    for (account, mount) in world.mounts.dropFirst() {
                        let seen = tree(mount(folder)), wanted = account == "cyd" && folder == "two" ? nil : right
                        guard seen == wanted else {
                            last = "\(mount.path)/\(folder): \(seen ?? [:]), not \(wanted ?? [:])"
                            return false
                        }
                    }
                }
                return true
            }
        } catch { Issue.record("\(error); last seen: \(last)") }
        // Whatever somebody wrote and did not remove is in the drive, or where it was rescued to.
        var places = [world.drive.root + "/data/objects"]
        for (_, mount) in world.mounts where access(mount.stateFolder + "/rescue", F_OK) == 0 { places.append(mount.stateFolder + "/rescue") }
        let kept = Set(try run("grep", ["-rhoE", "text [0-9]+ of mount [0-9];"] + places).output.split(separator: "\n").map(String.init))
        #expect(Set(world.texts.values).subtracting(kept) == [], "nothing is lost")
        let checked = try world.drive.fsck()
        #expect(checked.status == 0, "\(checked.output)")
        world.drive.end()
    }
}
