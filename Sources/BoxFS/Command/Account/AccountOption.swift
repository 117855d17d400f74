import ArgumentParser
import Glibc
import Shared

/// Whose drive a command is about: the one of the mount that DIR lies in, otherwise that of the login.
struct AccountOption: ParsableArguments {
    @Option(name: .long, help: ArgumentHelp("A mount, or anything in it. [default: the current folder's mount, or the login]", valueName: "dir"), completion: .directory)
    var mount: String?

    @Option(help: "Which login, where no mount says it.")
    var profile = ProfileName.standard

    /// What is written in the mount is on the server before this returns.
    func open() throws(CommandFailure) -> (server: ServerAccess, namespace: NamespaceID) {
        let found: Profile
        if let mount {
            found = try DrivePath(mount).profile
        } else if let here = try? AbsolutePath.resolve("."), (try? MountRegistry().find(here, in: MountTable.current())) != nil {
            found = try DrivePath(here).profile
        } else {
            found = try Profile.load(profile)
        }
        return (ServerAccess(found), found.home)
    }
}
