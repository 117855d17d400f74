import ArgumentParser
import Foundation
import Shared

extension DoctorCommand {
    /// Repairs the state folder of a mount that is not mounted.
    func repairState(of dir: String) throws {
        let folders = Folders()
        let known = try Profile.load(profile, from: folders)
        let mountPoint = try AbsolutePath.resolve(dir)
        let path = try cacheDir.map { path throws(CommandFailure) in try AbsolutePath.resolve(path) }
            ?? StateFolder.standardPath(folders, profile: profile, account: known.account, mountPoint: mountPoint)
        guard access(path, F_OK) == 0 else { throw CommandFailure("\(dir) was never mounted with this login: there is no \(path).") }
        let report: ReplicaRepair.Report
        do {
            let lock = try StateFolder(path)
            report = try ReplicaRepair.run(lock.path) { try unknown($0, known) }
        } catch let failure as CommandFailure { throw failure } catch { throw CommandFailure("\(path) could not be repaired: \(error).") }
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            Terminal.say(String(decoding: try encoder.encode(report), as: UTF8.self))
        } else {
            Terminal.say(Self.lines(report).joined(separator: "\n"))
        }
    }

    /// Which of these chunks the server wants: it has none of them for this account.
    private func unknown(_ chunks: [ChunkReference], _ profile: Profile) throws(CommandFailure) -> Set<ChunkHash> {
        let server = ServerAccess(profile)
        var wanted: Set<ChunkHash> = [], rest = chunks[...]
        while !rest.isEmpty {
            let request = UploadRequest(chunks: Data(Manifest.pack(rest.prefix(10_000))), pages: [])
            rest = rest.dropFirst(10_000)
            wanted.formUnion(try server.ask { remote async throws(RemoteError) in try await remote.startUpload(profile.home, request).neededChunks })
        }
        return wanted
    }

    private static func lines(_ report: ReplicaRepair.Report) -> [String] {
        guard let damage = report.damage else { return ["The local database is in order: nothing was changed."] }
        var lines = ["The local database was damaged: \(damage)"]
        if let rescue = report.rescue { lines.append("What was not sent is in \(rescue). Copy what you need into the mount.") }
        for path in report.kept { lines.append("  whole       \(path)") }
        for path in report.incomplete { lines.append("  incomplete  \(path)") }
        if report.loosePieces > 0 { lines.append("  \(report.loosePieces) pieces of files whose names are lost, in segments/") }
        if report.lostChanges > 0 { lines.append("\(report.lostChanges) changes of names and attributes that were not sent are lost.") }
        if !report.unreadable.isEmpty { lines.append("Not readable to the end: \(report.unreadable.joined(separator: ", ")). There may have been more.") }
        if report.rescue == nil { lines.append("Nothing that was not sent was found.") }
        if let aside = report.aside { lines.append("The damaged database is in \(aside); remove it when you miss nothing.") }
        return lines + ["Mount again: the tree comes from the server, and cached data are used on."]
    }
}
