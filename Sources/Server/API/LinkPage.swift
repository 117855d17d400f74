import Foundation
import Hummingbird
import NIOCore
import Shared

/// The small pages that a visitor of a link sees: plain HTML without scripts, under a policy that allows none.
enum LinkPage {
    private static let style = """
        body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem;color:#222;background:#fff}\
        h1{font-size:1.3rem;overflow-wrap:anywhere}table{border-collapse:collapse;width:100%}td{padding:.3rem .5rem;border-top:1px solid #ddd;overflow-wrap:anywhere}\
        td+td{text-align:right;white-space:nowrap;color:#666}a{color:#06c}button,.button{font:inherit;background:#06c;color:#fff;border:0;border-radius:.3rem;\
        padding:.4rem 1rem;text-decoration:none;display:inline-block}input{font:inherit;padding:.3rem}img,video{max-width:100%}.error{color:#b00}
        """

    /// Only this page's own style, forms and pictures of this server.
    static let policy: String = {
        let hash = Data(SHA256.hash(Array(style.utf8)).bytes).base64EncodedString()
        return "default-src 'none'; style-src 'sha256-\(hash)'; img-src 'self'; media-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    }()

    /// What a file of the link may do when a browser shows it: nothing.
    static let filePolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; media-src 'self'; sandbox"

    static func response(_ status: HTTPResponse.Status = .ok, title: String, _ body: String) -> Response {
        let page = """
            <!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">\
            <title>\(escaped(title))</title><style>\(style)</style></head><body><h1>\(escaped(title))</h1>\(body)</body></html>
            """
        return Response(status: status, headers: headers([.contentType: "text/html; charset=utf-8", .contentSecurityPolicy: policy]),
                        body: .init(byteBuffer: ByteBuffer(string: page)))
    }

    /// What every answer to a visitor carries: the address is a secret that no other site shall hear, and no cache may keep.
    static func headers(_ more: HTTPFields) -> HTTPFields {
        var fields = more
        fields[.cacheControl] = "private, no-store"
        fields[HTTPFields.Element.Name("Referrer-Policy")!] = "no-referrer"
        return fields
    }

    static func problem(_ problem: Problem, retryAfterSeconds: Int?) -> Response {
        // 403, not 401: a browser would ask for a name as well, in a window of its own.
        let isPassword = problem.code == ProblemCode.passwordRequired.rawValue
        let form = #"<form method="post"><p><input type="password" name="password" required autofocus> <button>Open</button></p></form>"#
        let detail = problem.detail.map { "<p>\(escaped($0))</p>" } ?? ""
        var page = response(.init(code: isPassword ? 403 : problem.status), title: problem.title, isPassword ? form : detail)
        if let retryAfterSeconds { page.headers[.retryAfter] = String(retryAfterSeconds) }
        return page
    }

    static func file(_ visit: LinkVisit, _ name: String, size: UInt64, base: String) -> Response {
        let address = "\(base)/view", type = FileKind(name).type
        let shown: String
        switch type.split(separator: "/").first {
        case "image": shown = #"<p><img src="\#(address)" alt=""></p>"#
        case "video": shown = #"<p><video src="\#(address)" controls></video></p>"#
        case "audio": shown = #"<p><audio src="\#(address)" controls></audio></p>"#
        default: shown = FileKind(name).isShown ? #"<p><a href="\#(address)">Show</a></p>"# : visit.link.isViewOnly ? "<p>This kind of file cannot be shown here.</p>" : ""
        }
        let download = visit.link.isViewOnly ? "" : #"<p><a class="button" href="\#(base)/download">Download</a> \#(bytes(size))</p>"#
        // What is shown counts as no download, so a link with few of them shows nothing.
        return response(title: name, (visit.link.maximumDownloads == nil ? shown : "") + download)
    }

    static func folder(_ visit: LinkVisit, _ path: String, _ entries: [Drive.LinkedEntry], base: String) -> Response {
        var body = ""
        let whole = path.isEmpty ? "" : "?path=" + FormText.encoded(path)
        if !visit.link.isViewOnly { body += #"<p><a class="button" href="\#(base)/download\#(whole)">Download all (zip)</a></p>"# }
        body += "<table>"
        if !path.isEmpty {
            let above = path.split(separator: "/").dropLast().joined(separator: "/")
            body += #"<tr><td><a href="\#(base)?path=\#(FormText.encoded(above))">..</a></td><td></td></tr>"#
        }
        for entry in entries {
            let query = "?path=" + FormText.encoded(path.isEmpty ? entry.path : path + "/" + entry.path)
            let name = escaped(entry.path)
            if entry.node.isDirectory {
                body += #"<tr><td><a href="\#(base)\#(query)">\#(name)/</a></td><td></td></tr>"#
            } else {
                let page = visit.link.isViewOnly ? (FileKind(entry.path).isShown ? "/view" : "") : "/download"
                body += entry.node.isRegular && !page.isEmpty ? #"<tr><td><a href="\#(base)\#(page)\#(query)">\#(name)</a></td><td>\#(bytes(entry.size))</td></tr>"#
                    : "<tr><td>\(name)</td><td>\(entry.node.isRegular ? bytes(entry.size) : "")</td></tr>"
            }
        }
        return response(title: path.isEmpty ? visit.name : visit.name + "/" + path, body + "</table>")
    }

    /// Shows nothing but that files may be sent: not even the folder's name.
    static func upload(base: String, space: UInt64?, received: [String] = []) -> Response {
        let done = received.isEmpty ? "" : "<p>Received: \(received.map(escaped).joined(separator: ", ")). Thank you.</p>"
        let limit = space.map { "<p>At most \(bytes($0)).</p>" } ?? ""
        return response(title: "Send files", """
            \(done)<form method="post" enctype="multipart/form-data" action="\(base)/upload"><p><input type="file" name="file" multiple required> \
            <button>Send</button></p></form>\(limit)
            """)
    }

    private static func bytes(_ count: UInt64) -> String {
        var (value, unit) = (Double(count), 0)
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
        while value >= 1000, unit < units.count - 1 { (value, unit) = (value / 1024, unit + 1) }
        return unit == 0 ? "\(count) B" : String(format: "%.1f ", value) + units[unit]
    }

    private static func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;").replacing("\"", with: "&quot;").replacing("'", with: "&#39;")
    }
}

/// What a browser may show of a file by its name's ending: kinds that cannot do anything by themselves.
struct FileKind {
    let type: String
    var isShown: Bool { type != "application/octet-stream" }

    private static let types = [
        "txt": "text/plain; charset=utf-8", "md": "text/plain; charset=utf-8", "log": "text/plain; charset=utf-8", "csv": "text/plain; charset=utf-8",
        "json": "text/plain; charset=utf-8", "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp",
        "avif": "image/avif", "mp4": "video/mp4", "webm": "video/webm", "mp3": "audio/mpeg", "ogg": "audio/ogg", "flac": "audio/flac", "wav": "audio/wav",
        "pdf": "application/pdf",
    ]

    init(_ name: String) {
        let ending = name.split(separator: ".", omittingEmptySubsequences: false).dropFirst().last?.lowercased() ?? ""
        type = Self.types[ending] ?? "application/octet-stream"
    }
}
