import Testing
@testable import Shared

struct ContentDigestTests {
    // RFC 9530, appendix B.1 (the body ends with a line feed).
    private let body = Array(#"{"hello": "world"}"#.utf8) + [10]
    private let value = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"

    @Test func theExampleOfTheStandard() { #expect(body.withUnsafeBytes { ContentDigest.value(of: $0) } == value) }

    @Test func whatAgrees() {
        func agrees(_ field: String) -> Bool? { body.withUnsafeBytes { ContentDigest.agrees(field, with: $0) } }
        for field in [value, "sha-512=:AAAA:, \(value)", "\(value);x=1 ,md5=:AA==:"] { #expect(agrees(field) == true) }
        for field in ["", "sha-512=:AAAA:"] { #expect(agrees(field) == nil, "nothing is said of SHA-256") }
        for field in [value.replacing("RK", with: "Rk"), "sha-256=:AAAA:", "sha-256=::"] { #expect(agrees(field) == false) }
        var other = body
        for index in body.indices {
            other[index] ^= 4
            #expect(other.withUnsafeBytes { ContentDigest.agrees(value, with: $0) } == false)
            other[index] ^= 4
        }
    }
}
