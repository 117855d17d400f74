import ArgumentParser

struct CompletionsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "completions",
        abstract: "Print a completion script for bash, zsh or fish.",
        discussion: """
            bash:  boxfs completions bash > ~/.local/share/bash-completion/completions/boxfs
            zsh:   boxfs completions zsh > ~/.zsh/completions/_boxfs
            fish:  boxfs completions fish > ~/.config/fish/completions/boxfs.fish
            """)

    @Argument(help: "bash, zsh or fish.")
    var shell: String

    func run() throws {
        guard let shell = CompletionShell(rawValue: shell) else {
            throw CommandFailure(.usage, "There are completions for bash, zsh and fish.")
        }
        Terminal.say(BoxFSCommand.completionScript(for: shell))
    }
}
