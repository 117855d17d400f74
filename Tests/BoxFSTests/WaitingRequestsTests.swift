import Shared
import Synchronization
import Testing
@testable import BoxFS

@Suite struct WaitingRequestsTests {
    /// A notification waits for the last request of its inodes, and for no other.
    @Test func notificationsWaitForRequestsOfTheirInodes() {
        let requests = WaitingRequests(), told = Mutex<[String]>([])
        let read = RequestCall(.read, 7), again = RequestCall(.read, 7)
        let rename = RequestCall(.rename, 1, "a").to(RequestCall(.rename, 2, "b"))
        func tell(_ name: String, _ inodes: [UInt64]) -> Bool {
            requests.putOff(inodes.map(InodeNumber.init(rawValue:))) { told.withLock { $0.append(name) } }
        }
        requests.begin(read)
        requests.begin(again)
        requests.begin(rename)
        #expect(!tell("other", [8]) && !tell("attributes", []))
        #expect(tell("data", [7]) && tell("entry", [2]) && tell("deletion", [9, 1]))
        requests.end(read)
        #expect(told.withLock { $0 } == [])
        requests.end(rename)
        #expect(Set(told.withLock { $0 }) == ["entry", "deletion"])
        requests.end(again)
        #expect(told.withLock { $0.last } == "data")
        #expect(!tell("later", [7]))
    }
}
