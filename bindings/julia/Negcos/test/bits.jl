# SPDX-License-Identifier: Apache-2.0
#
# tests/golden/calls.txt: the same bits as the C call.

const TYPES = Dict("f32" => Float32, "f64" => Float64, "f16" => Float16, "bf16" => Negcos.BFloat16)

# Exact in every type; of a bfloat16 the upper half of a Float32.
exactly(T, x) = T(x)
exactly(::Type{Negcos.BFloat16}, x) = reinterpret(Negcos.BFloat16, (reinterpret(UInt32, Float32(x)) >> 16) % UInt16)

# d x n in a parent with `padding` more rows, which nobody may touch.
function padded(T, d, n, padding)
    parent = fill(exactly(T, 99), d + padding, n)
    return view(parent, 1:d, :), parent
end
function embeddings(T, d, n, padding, salt)
    x, _ = padded(T, d, n, padding)
    for j in 0:n-1, k in 0:d-1
        x[k+1, j+1] = exactly(T, (mod(31j + 17k + salt + 3j * k, 41) - 20) / 16)
    end
    return x
end

function fnv1a(x)
    hash = 0xcbf29ce484222325
    for value in x, byte in reinterpret(UInt8, [htol(value isa Int32 ? value : bits(value))])
        hash = (hash ⊻ byte) * 0x00000100000001b3
    end
    return string(hash; base = 16, pad = 16)
end
bits(x::Float64) = reinterpret(UInt64, x)
bits(x::Float32) = reinterpret(UInt32, x)
bits(x::AbstractFloat) = reinterpret(UInt16, x)
hexadecimal(x::Float64) = string(bits(x); base = 16, pad = 16)

option_value(name, word) =
    name === :exclude ? [key for (key, bit) in pairs(Negcos.ENUMERATORS.exclude) if parse(Int, word) & bit != 0] :
    haskey(Negcos.ENUMERATORS, name) ? Symbol(replace(word, '-' => '_')) :
    fieldtype(Negcos.COptions, name) <: Integer ? parse(Int, word) : parse(Float64, word)

function golden_call(context, line)
    keywords = Dict(Symbol(first(pair)) => String(last(pair)) for pair in split.(split(line), '='; limit = 2))
    take(key) = parse(Int, pop!(keywords, key, "0"))
    T = TYPES[pop!(keywords, :dtype)]
    name = pop!(keywords, :name)
    B, M, d, padding, hard = take.((:queries, :documents, :dim, :row_padding, :hard))
    options = Dict{Symbol,Any}(key => option_value(key, pop!(keywords, key)) for key in Negcos.OPTIONS if haskey(keywords, key))
    rounds = get(options, :rounds, 4)
    inputs = Dict{Symbol,Any}()
    hard > 0 && (inputs[:hard_negatives] = embeddings(T, d, B * hard, padding, 21))
    if haskey(options, :exclude)
        inputs[:document_ids] = collect(0:M-1) .% 5
        inputs[:query_ids] = collect(0:B-1) .% 7
    end

    parents = Any[]
    out = Dict{Symbol,Any}()
    for key in Negcos.OUTPUTS
        haskey(keywords, key) || continue
        shape = Negcos.output_size(key, d, B, M, hard, rounds)
        if key === :negatives
            out[key] = Negcos.ZeroBased(zeros(Int32, shape))
        elseif length(shape) == 1 # a row of a matrix: a vector with a stride
            parent = fill(exactly(T, 99), 1 + padding, shape[1])
            out[key] = view(parent, 1, :)
            push!(parents, view(parent, 2:1+padding, :))
        else
            out[key], parent = padded(T, shape..., padding)
            push!(parents, view(parent, shape[1]+1:shape[1]+padding, :))
        end
    end
    result = Negcos.evaluate!((; out...), context, embeddings(T, d, B, padding, 7), embeddings(T, d, M, padding, 14);
        inputs..., options...)

    @test all(gap -> all(isequal(bits(exactly(T, 99))), bits.(gap)), parents)
    for (key, expected) in keywords
        if haskey(out, key)
            array = out[key]
            @test (line, key, fnv1a(array isa Negcos.ZeroBased ? array.rows : array)) == (line, key, expected)
        elseif result[key] isa Int64
            @test (line, key, string(result[key])) == (line, key, expected)
        else
            @test (line, key, hexadecimal(result[key])) == (line, key, expected)
        end
    end
    return T
end

for (how, arguments) in (
    "as it comes" => (), "Julia's threads" => (threading = :julia,), "scalar, alone" => (isa = "scalar", threading = :serial),
)
    case("bits: golden calls, $how") do
        Negcos.Context(; arguments...) do context
            types = Set()
            for line in eachline(joinpath(ROOT, "tests", "golden", "calls.txt"))
                isempty(line) || startswith(line, "#") || push!(types, golden_call(context, line))
            end
            @test types == Set(values(TYPES))
        end
    end
end
