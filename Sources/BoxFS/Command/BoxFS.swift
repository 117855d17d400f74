import ArgumentParser
import ChunkCache
import GRDB
import CFuse3
import CCurl
@main struct BoxFSCommand: ParsableCommand { mutating func run() { print(fuse_version(), curl_version() as Any) } }
