import ArgumentParser

/// Which account a command is about that no mount tells.
struct LoginOption: ParsableArguments {
    @Option(help: "Which login.") var profile = ProfileName.standard

    func open() throws(CommandFailure) -> ServerAccess { ServerAccess(try Profile.load(profile)) }
}
