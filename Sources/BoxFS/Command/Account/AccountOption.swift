import ArgumentParser
import Glibc
import Shared

/// Whose drive a command is about: the one of the mount that DIR lies in, or the shared folder; otherwise that of the login.
struct AccountOption: ParsableArguments {
    @Option(name: .long, help: ArgumentHelp("A mount or a shared folder, or anything in it. [default: the current folder, or the login]", valueName: "dir"), completion: .directory)
    var mount: String?

    @Option(help: "Which login, where no mount says it.")
    var profile = ProfileName.standard

    /// What is written in the mount is on the server before this returns.
    func open() throws(CommandFailure) -> (server: ServerAccess, namespace: NamespaceID) {
        if let mount { return Self.found(try DrivePath(mount)) }
        if let here = try? AbsolutePath.resolve("."), (try? MountRegistry().find(here, in: MountTable.current())) != nil {
            return Self.found(try DrivePath(here))
        }
        let found = try Profile.load(profile)
        return (ServerAccess(found), found.home)
    }

    private static func found(_ place: DrivePath) -> (server: ServerAccess, namespace: NamespaceID) { (ServerAccess(place.profile), place.namespace) }
}
