import ArgumentParser
import Hummingbird
import HummingbirdTLS
import GRDB
@main struct ServerCommand: AsyncParsableCommand { mutating func run() async throws { print("x") } }
