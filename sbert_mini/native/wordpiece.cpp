// BERT's tokenizer: texts -> word-piece ids, equal to those of Hugging Face's `tokenizers`. Compiled for any processor.
//
// A text is read once. Each character goes through BERT's normalizer, step by step (`Reader::character` to `Reader::placed`), and
// what comes out is collected in a word. White space and punctuation end a word. A word is looked up in a hash table: first whole,
// then as the longest pieces from its start. Letters, digits and other ASCII characters that stay in a word take a short way.
//
// The table holds each entry of the vocabulary as the start of a word, and those that begin with the prefix ("##") once more,
// without it, as what continues one. Its hash is salted: a vocabulary cannot be made to collide.

#include "boundary.h"
#include "unicode_tables.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

using namespace sbmini;

namespace sbmini {

// What the normalizer does, as bits.
enum Step { CLEAN_TEXT = 1, HANDLE_CHINESE = 2, STRIP_ACCENTS = 4, LOWERCASE = 8, LOWERCASE_FIRST = 16, ALL_STEPS = 31 };

struct Entry {
    uint32_t hash;
    uint32_t start;   // in `pieces`
    uint32_t length;  // in bytes; with `CONTINUES`, what comes after the prefix
    int32_t id;       // -1: this slot is free
};

struct WordPiece {
    int steps;
    int32_t unknown;
    int64_t longest_word;              // in characters: a longer one is unknown
    uint64_t salt[2];
    std::vector<uint8_t> pieces;       // all entries, one after the other, and 8 bytes that may be read
    std::vector<Entry> table;          // of a power of two
    size_t longest_piece[2] = {0, 0};  // in bytes; of the starts of words, and of what continues them
    uint8_t in_word[128];              // what an ASCII character becomes in a word; 0 where it is not in one alone
    uint16_t not_plain;                // flags of a character that does not enter a word as it is
};

}  // namespace sbmini

namespace {

using Text = Array<const uint8_t>;
using Offsets = Array<const int64_t>;

constexpr uint32_t CONTINUES = 1u << 31;
constexpr size_t PADDING = 8;  // bytes after a word that may be read
constexpr int64_t MOST_BYTES = 1LL << 40, MOST_PIECE_BYTES = 1LL << 30, MOST_PIECES = 1LL << 24;

const unicode::Kind& kind_of(uint32_t code) {
    const unsigned block = unicode::PAGES[code / unicode::BLOCK];
    return unicode::KINDS[unicode::BLOCKS[block * unicode::BLOCK + code % unicode::BLOCK]];
}

// Where `code` is in an ascending array, which holds it.
template <size_t N>
size_t index_in(const uint32_t (&codes)[N], uint32_t code) {
    return static_cast<size_t>(std::lower_bound(codes, codes + N, code) - codes);
}

uint64_t load(const uint8_t* bytes) {
    uint64_t value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
}

// The first `count` bytes of 8, 1 <= count <= 8; the others 0. The same on any byte order, for bytes of one machine.
uint64_t load(const uint8_t* bytes, size_t count) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return load(bytes) >> (64 - 8 * count);
#else
    return load(bytes) << (64 - 8 * count);
#endif
}

// The 64 bits that two numbers' product of 128 folds to.
uint64_t folded(uint64_t a, uint64_t b) {
#if defined(__SIZEOF_INT128__)
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
#else
    const uint64_t low = (a & 0xffffffff) * (b & 0xffffffff), high = (a >> 32) * (b >> 32);
    const uint64_t middle = (a >> 32) * (b & 0xffffffff), other = (a & 0xffffffff) * (b >> 32);
    const uint64_t sum = (low >> 32) + (middle & 0xffffffff) + (other & 0xffffffff);
    return ((sum << 32) | (low & 0xffffffff)) ^ (high + (middle >> 32) + (other >> 32) + (sum >> 32));
#endif
}

// Reads up to 7 bytes after the piece.
uint64_t hash_of(const WordPiece& m, const uint8_t* piece, size_t length, uint32_t key) {
    uint64_t hash = m.salt[0] ^ key;
    for (; length > 8; piece += 8, length -= 8) hash = folded(hash ^ load(piece), m.salt[1]);
    hash = folded(hash ^ load(piece, length), m.salt[1]);
    return folded(hash, 0x9e3779b97f4a7c15u);
}

// Reads up to 7 bytes after both.
bool equal(const uint8_t* a, const uint8_t* b, size_t length) {
    for (; length > 8; a += 8, b += 8, length -= 8)
        if (load(a) != load(b)) return false;
    return load(a, length) == load(b, length);
}

// The id of a piece of at least one byte; -1 where the vocabulary lacks it. Reads up to 7 bytes after it.
int32_t find(const WordPiece& m, const uint8_t* piece, size_t length, bool continues) {
    const uint32_t key = static_cast<uint32_t>(length) | (continues ? CONTINUES : 0);
    const uint64_t hash = hash_of(m, piece, length, key);
    const size_t last = m.table.size() - 1;
    for (size_t slot = static_cast<size_t>(hash >> 32) & last;; slot = (slot + 1) & last) {
        const Entry& entry = m.table[slot];
        if (entry.id < 0) return -1;
        if (entry.hash == static_cast<uint32_t>(hash) && entry.length == key && equal(m.pieces.data() + entry.start, piece, length))
            return entry.id;
    }
}

void insert(WordPiece& m, size_t start, size_t length, bool continues, int32_t id) {
    const uint8_t* piece = m.pieces.data() + start;
    const uint32_t key = static_cast<uint32_t>(length) | (continues ? CONTINUES : 0);
    const uint64_t hash = hash_of(m, piece, length, key);
    const size_t last = m.table.size() - 1;
    size_t slot = static_cast<size_t>(hash >> 32) & last;
    while (m.table[slot].id >= 0) slot = (slot + 1) & last;
    m.table[slot] = {static_cast<uint32_t>(hash), static_cast<uint32_t>(start), key, id};
    m.longest_piece[continues] = std::max(m.longest_piece[continues], length);
}

// Reads a character of UTF-8 and moves behind it; false where it is none.
bool decode(const uint8_t*& at, const uint8_t* end, uint32_t& code) {
    const uint32_t first = *at;
    const int more = first < 0x80 ? 0 : first < 0xc2 ? -1 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf5 ? 3 : -1;
    if (more < 0 || end - at <= more) return false;
    code = more == 0 ? first : first & (0x3fu >> more);
    for (int i = 1; i <= more; ++i) {
        if ((at[i] & 0xc0) != 0x80) return false;
        code = code << 6 | (at[i] & 0x3fu);
    }
    if ((more == 2 && (code < 0x800 || (code >= 0xd800 && code < 0xe000))) || (more == 3 && (code < 0x10000 || code > 0x10ffff)))
        return false;
    at += more + 1;
    return true;
}

// Where the ids of several texts go, and the words among them that are unknown. No more is written than there is room for.
struct Output {
    Array<int32_t> ids;
    Array<uint8_t> words;
    Array<int64_t> word_ends;
    int64_t written = 0, word_bytes = 0, word_count = 0;
    bool full = false;

    void id(int32_t value) {
        if (written >= ids.count)
            full = true;
        else
            ids.data[written++] = value;
    }

    void word(const uint8_t* bytes, size_t length) {
        if (word_count >= word_ends.count || static_cast<int64_t>(length) > words.count - word_bytes) {
            full = true;
            return;
        }
        if (length) std::memcpy(words.data + word_bytes, bytes, length);
        word_bytes += static_cast<int64_t>(length);
        word_ends.data[word_count++] = word_bytes;
    }
};

// Texts -> ids, one text after the other.
class Reader {
   public:
    Reader(const WordPiece& model, Output& output) : m(model), out(output), word(256) {}

    // Writes the ids of a text, `limit` at most. Returns false where it is not UTF-8.
    bool read(const uint8_t* at, const uint8_t* end, int64_t limit) {
        room = limit, cut = false, length = 0, characters = 0;
        reordered.clear();
        while (at < end && !cut && !out.full) {
            if (*at < 0x80 && m.in_word[*at] && reordered.empty()) {
                at = plain(at, end);
                continue;
            }
            uint32_t code;
            if (!decode(at, end, code)) return false;
            const unicode::Kind& kind = kind_of(code);
            if (!(kind.flags & m.not_plain) && code - HANGUL >= SYLLABLES && reordered.empty())
                append(code);
            else
                character(code, kind);
        }
        settle();
        end_word();
        return true;
    }

    bool cut = false;  // whether the text has more ids than there was room for

   private:
    static constexpr uint32_t HANGUL = 0xac00, SYLLABLES = 11172, VOWELS = 21, FINALS = 28;

    const WordPiece& m;
    Output& out;
    std::vector<uint8_t> word;  // the normalized word so far, with `PADDING`
    size_t length = 0;          // its bytes
    int64_t characters = 0;     // and characters
    int64_t room = 0;           // ids that the text may still have
    std::vector<uint32_t> reordered;  // marks that stay, and whose order NFD has yet to settle
    struct Piece {
        int32_t id;
        uint32_t start, length;
    };
    std::vector<Piece> parts;

    void reserve(size_t more) {
        if (word.size() - length < more + PADDING) word.resize(2 * word.size() + more + PADDING);
    }

    // Takes ASCII characters as long as they stay in a word. Returns where they end.
    const uint8_t* plain(const uint8_t* at, const uint8_t* end) {
        constexpr ptrdiff_t AT_ONCE = 256;
        reserve(AT_ONCE);
        const uint8_t* stop = at + std::min(end - at, AT_ONCE);
        const uint8_t* from = at;
        uint8_t* to = word.data() + length;
        for (uint8_t c; at < stop && *at < 0x80 && (c = m.in_word[*at]); ++at) *to++ = c;
        length += static_cast<size_t>(at - from), characters += at - from;
        return at;
    }

    void append(uint32_t code) {
        reserve(4);
        uint8_t* to = word.data() + length;
        if (code < 0x80) {
            to[0] = static_cast<uint8_t>(code), length += 1;
        } else if (code < 0x800) {
            to[0] = static_cast<uint8_t>(0xc0 | code >> 6), to[1] = static_cast<uint8_t>(0x80 | (code & 0x3f)), length += 2;
        } else if (code < 0x10000) {
            to[0] = static_cast<uint8_t>(0xe0 | code >> 12), to[1] = static_cast<uint8_t>(0x80 | (code >> 6 & 0x3f));
            to[2] = static_cast<uint8_t>(0x80 | (code & 0x3f)), length += 3;
        } else {
            to[0] = static_cast<uint8_t>(0xf0 | code >> 18), to[1] = static_cast<uint8_t>(0x80 | (code >> 12 & 0x3f));
            to[2] = static_cast<uint8_t>(0x80 | (code >> 6 & 0x3f)), to[3] = static_cast<uint8_t>(0x80 | (code & 0x3f)), length += 4;
        }
        ++characters;
    }

    // The steps of the normalizer, in their order; each hands its characters to the next.
    void character(uint32_t code, const unicode::Kind& kind) {
        if (!(m.steps & LOWERCASE_FIRST) || !(kind.flags & unicode::LOWERED)) return cleaned(code, kind);
        const uint32_t lower = code + static_cast<uint32_t>(kind.lower);
        cleaned(lower, kind_of(lower));
        if (code == unicode::DOTTED_I) cleaned(DOT_ABOVE, kind_of(DOT_ABOVE));
    }

    void cleaned(uint32_t code, const unicode::Kind& kind) {
        if (m.steps & CLEAN_TEXT) {
            if (kind.flags & unicode::CONTROL) return;
            if (kind.flags & unicode::SPACE) return decomposed(' ', kind_of(' '));
        }
        if (!(m.steps & HANDLE_CHINESE) || !(kind.flags & unicode::CHINESE)) return decomposed(code, kind);
        decomposed(' ', kind_of(' '));
        decomposed(code, kind);
        decomposed(' ', kind_of(' '));
    }

    void decomposed(uint32_t code, const unicode::Kind& kind) {
        if (!(m.steps & STRIP_ACCENTS)) return lowered(code, kind);
        if (code - HANGUL < SYLLABLES) {  // The Unicode Standard, section 3.12
            const uint32_t index = code - HANGUL, last = index % FINALS;
            ordered(0x1100 + index / (VOWELS * FINALS));
            ordered(0x1161 + index % (VOWELS * FINALS) / FINALS);
            if (last) ordered(0x11a7 + last);
        } else if (kind.flags & unicode::DECOMPOSED) {
            const size_t entry = index_in(unicode::DECOMPOSING, code);
            for (int i = unicode::PART_STARTS[entry]; i < unicode::PART_STARTS[entry + 1]; ++i) ordered(unicode::PARTS[i]);
        } else {
            ordered(code, kind);
        }
    }

    void ordered(uint32_t code) { ordered(code, kind_of(code)); }

    // Marks of a class other than 0 are sorted by it. Those that are removed do not change the order of the others.
    void ordered(uint32_t code, const unicode::Kind& kind) {
        if (!(kind.flags & unicode::REORDERED)) {
            settle();
            if (!(kind.flags & unicode::MARK)) lowered(code, kind);
        } else if (!(kind.flags & unicode::MARK)) {
            reordered.push_back(code);
        }
    }

    void settle() {
        if (reordered.empty()) return;
        std::stable_sort(reordered.begin(), reordered.end(),
                         [](uint32_t a, uint32_t b) { return combining_class(a) < combining_class(b); });
        for (uint32_t code : reordered) lowered(code, kind_of(code));
        reordered.clear();
    }

    static int combining_class(uint32_t code) { return unicode::COMBINING_CLASSES[index_in(unicode::COMBINING, code)]; }

    void lowered(uint32_t code, const unicode::Kind& kind) {
        if (!(m.steps & LOWERCASE) || !(kind.flags & unicode::LOWERED)) return placed(code, kind);
        const uint32_t lower = code + static_cast<uint32_t>(kind.lower);
        placed(lower, kind_of(lower));
        if (code == unicode::DOTTED_I) placed(DOT_ABOVE, kind_of(DOT_ABOVE));
    }

    static constexpr uint32_t DOT_ABOVE = 0x307;

    // The pre-tokenizer: white space ends a word, and punctuation is one by itself.
    void placed(uint32_t code, const unicode::Kind& kind) {
        if (!(kind.flags & (unicode::SPACE | unicode::PUNCTUATION))) return append(code);
        end_word();
        if (kind.flags & unicode::SPACE) return;
        append(code);
        end_word();
    }

    void id(int32_t value, const uint8_t* bytes, size_t count) {
        if (room == 0) {
            cut = true;
            return;
        }
        --room;
        out.id(value);
        if (value == m.unknown) out.word(bytes, count);
    }

    void end_word() {
        if (length && !cut && !out.full) look_up();
        length = 0, characters = 0;
    }

    void look_up() {
        std::memset(word.data() + length, 0, PADDING);
        const int32_t whole = length <= m.longest_piece[0] && characters <= m.longest_word ? find(m, word.data(), length, false) : -1;
        if (whole >= 0)
            id(whole, word.data(), length);
        else if (characters <= m.longest_word && divide())
            for (const Piece& part : parts) id(part.id, word.data() + part.start, part.length);
        else
            id(m.unknown, word.data(), length);
    }

    // The longest pieces from the start of the word on, which is none itself, in `parts`; false where the vocabulary lacks one.
    bool divide() {
        parts.clear();
        size_t longest = std::min(m.longest_piece[0], length - 1);
        for (size_t start = 0; start < length; longest = std::min(m.longest_piece[1], length - start)) {
            int32_t piece = -1;
            size_t count = longest;
            for (; count > 0; --count) {
                if (start + count < length && (word[start + count] & 0xc0) == 0x80) continue;  // inside a character
                if ((piece = find(m, word.data() + start, count, start > 0)) >= 0) break;
            }
            if (piece < 0) return false;
            parts.push_back({piece, static_cast<uint32_t>(start), static_cast<uint32_t>(count)});
            start += count;
        }
        return true;
    }
};

// Whether ends ascend, from 0 on, to at most `last`, each at least `gap` after the one before.
bool ascend(Offsets ends, int64_t gap, int64_t last) {
    int64_t least = 0;
    for (int64_t i = 0; i < ends.count; ++i) {
        if (ends.data[i] < least || ends.data[i] > last) return false;
        least = ends.data[i] + gap;
    }
    return true;
}

// What an ASCII character becomes in a word; 0 where it does not stay in one as one ASCII character.
uint8_t ascii_in_word(int steps, uint32_t code) {
    const unicode::Kind& kind = kind_of(code);
    if (kind.flags & (unicode::SPACE | unicode::PUNCTUATION)) return 0;
    if ((steps & CLEAN_TEXT) && (kind.flags & unicode::CONTROL)) return 0;
    const bool lower = (steps & (LOWERCASE | LOWERCASE_FIRST)) && (kind.flags & unicode::LOWERED);
    return static_cast<uint8_t>(lower ? code + static_cast<uint32_t>(kind.lower) : code);
}

// Fills the table; the arrays are checked.
void fill(WordPiece& m, Text pieces, Offsets ends, Numbers ids, Text prefix) {
    m.pieces.reserve(static_cast<size_t>(pieces.count) + PADDING);
    m.pieces.assign(pieces.data, pieces.data + pieces.count);
    m.pieces.resize(m.pieces.size() + PADDING);
    const size_t before = static_cast<size_t>(prefix.count);
    auto each = [&](auto use) {
        for (int64_t i = 0, start = 0; i < ends.count; start = ends.data[i++] + 1) {
            const size_t length = static_cast<size_t>(ends.data[i] - start);
            use(i, static_cast<size_t>(start), length,
                length > before && (!before || std::memcmp(pieces.data + start, prefix.data, before) == 0));
        }
    };
    size_t entries = 0, slots = 64;
    each([&](int64_t, size_t, size_t length, bool continues) { entries += (length > 0) + continues; });
    while (slots * 3 < entries * 4) slots *= 2;
    m.table.assign(slots, Entry{0, 0, 0, -1});
    each([&](int64_t i, size_t start, size_t length, bool continues) {
        if (length) insert(m, start, length, false, ids.data[i]);
        if (continues) insert(m, start + before, length - before, true, ids.data[i]);
    });
}

}  // namespace

EXPORT void sbmini_wordpiece_close(WordPiece* m) noexcept { delete m; }

// Puts a new tokenizer into `made`, null where it fails. pieces: the vocabulary in UTF-8, with one byte between two entries that is
// not read; ends: where each ends; ids: of each, from 0 on; prefix: of pieces that continue a word; unknown: the id of a word that
// the vocabulary lacks; longest_word: in characters; steps: of the normalizer, `Step`s; salt: any number, best a random one.
// All is copied. Returns a `Status`.
EXPORT int sbmini_wordpiece_open(Text pieces, Offsets ends, Numbers ids, Text prefix, int unknown, int64_t longest_word, int steps,
                                 uint64_t salt, WordPiece** made) noexcept {
    if (!made) return BAD_ARRAY;
    *made = nullptr;
    if (unknown < 0 || longest_word < 0 || steps < 0 || steps > ALL_STEPS) return BAD_SIZE;
    if (ends.count < 1 || ends.count > MOST_PIECES || pieces.count < 0 || pieces.count > MOST_PIECE_BYTES) return BAD_SIZE;
    if (prefix.count < 0 || prefix.count > MOST_PIECE_BYTES) return BAD_SIZE;
    if (!holds(pieces, pieces.count) || !holds(ends, ends.count) || !holds(ids, ends.count) || !holds(prefix, prefix.count))
        return BAD_ARRAY;
    if (!ascend(ends, 1, pieces.count)) return BAD_LENGTH;
    for (int64_t i = 0; i < ids.count; ++i)
        if (ids.data[i] < 0) return BAD_TOKEN;
    return guarded([&] {
        std::unique_ptr<WordPiece> m(new WordPiece{});
        m->steps = steps, m->unknown = unknown, m->longest_word = longest_word;
        m->salt[0] = folded(salt ^ 0xa0761d6478bd642fu, 0xe7037ed1a0b428dbu);
        m->salt[1] = folded(salt ^ 0x8ebc6af09c88c6e3u, 0x589965cc75374cc3u) | 1;
        for (uint32_t code = 0; code < 128; ++code) m->in_word[code] = ascii_in_word(steps, code);
        m->not_plain = unicode::SPACE | unicode::PUNCTUATION;
        if (steps & CLEAN_TEXT) m->not_plain |= unicode::CONTROL;
        if (steps & HANDLE_CHINESE) m->not_plain |= unicode::CHINESE;
        if (steps & STRIP_ACCENTS) m->not_plain |= unicode::MARK | unicode::REORDERED | unicode::DECOMPOSED;
        if (steps & (LOWERCASE | LOWERCASE_FIRST)) m->not_plain |= unicode::LOWERED;
        fill(*m, pieces, ends, ids, prefix);
        *made = m.release();
        return DONE;
    });
}

// texts: in UTF-8, with one byte between two that is not read; ends: (texts,), where each ends. At most `limit` ids of each are
// written; `first` before them and `last` after them, unless these are -1. id_ends: (texts,), where the ids of each end; cut:
// (texts,), 1 where a text has more. words, word_ends: the unknown words, normalized, one for each id `unknown`, and where each
// ends. There is room enough with a number of ids of texts.count + 2 * ends.count, 4 * texts.count bytes of words and
// texts.count ends. Returns a `Status`.
EXPORT int sbmini_wordpiece_encode(const WordPiece* m, Text texts, Offsets ends, int64_t limit, int first, int last,
                                   Array<int32_t> ids, Array<int64_t> id_ends, Array<uint8_t> cut, Array<uint8_t> words,
                                   Array<int64_t> word_ends) noexcept {
    if (!m || texts.count < 0 || texts.count > MOST_BYTES || ends.count < 0 || ends.count > MOST_BYTES) return BAD_ARRAY;
    if (!holds(texts, texts.count) || !holds(ends, ends.count) || !holds(id_ends, ends.count) || !holds(cut, ends.count) ||
        ids.count < 0 || words.count < 0 || word_ends.count < 0 || !holds(ids, ids.count) || !holds(words, words.count) ||
        !holds(word_ends, word_ends.count))
        return BAD_ARRAY;
    if (limit < 0 || first < -1 || last < -1) return BAD_SIZE;
    if (!ascend(ends, 1, texts.count)) return BAD_LENGTH;
    return guarded([&] {
        Output output{ids, words, word_ends};
        Reader reader(*m, output);
        for (int64_t i = 0, start = 0; i < ends.count; start = ends.data[i++] + 1) {
            if (first >= 0) output.id(first);
            if (!reader.read(texts.data + start, texts.data + ends.data[i], limit)) return BAD_TEXT;
            if (last >= 0) output.id(last);
            if (output.full) return NO_ROOM;
            id_ends.data[i] = output.written, cut.data[i] = reader.cut;
        }
        return DONE;
    });
}
