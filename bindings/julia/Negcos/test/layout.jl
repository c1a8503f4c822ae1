# SPDX-License-Identifier: Apache-2.0
#
# Structs, enumerators and functions against the recorded ABI, capi/negcos.layout.

const STRUCTS = Dict(
    "negcos_const_matrix" => Negcos.CMatrix,
    "negcos_matrix" => Negcos.CMatrix,
    "negcos_context_options" => Negcos.CContextOptions,
    "negcos_options" => Negcos.COptions,
    "negcos_batch" => Negcos.CBatch,
    "negcos_result" => Negcos.CResult,
    "negcos_frequency_options" => Negcos.CFrequencyOptions,
)
const SCALARS = Dict("u32" => UInt32, "i32" => Int32, "u64" => UInt64, "i64" => Int64, "f64" => Float64)

same_type(T, recorded) = recorded == "pointer" ? T <: Ptr : T === get(SCALARS, recorded, get(STRUCTS, recorded, nothing))

# NEGCOS_SAMPLING_LOG_UNIFORM => 4
function enumerator_value(name)
    name == "NEGCOS_THREADING_CALLBACK" && return Negcos.ENUMERATORS.threading.julia
    tables = merge(Negcos.ENUMERATORS, (status = Negcos.STATUS, dtype = Negcos.DTYPE, frequency = Negcos.ENUMERATORS.method))
    for (table, values) in pairs(tables)
        prefix = "NEGCOS_" * uppercase(String(table)) * "_"
        startswith(name, prefix) && return get(values, Symbol(lowercase(name[length(prefix)+1:end])), nothing)
    end
    return nothing
end

case("layout: the recorded ABI") do
    fields = Dict(name => 0 for name in keys(STRUCTS))
    constants = functions = 0
    for line in eachline(joinpath(ROOT, "capi", "negcos.layout"))
        (isempty(line) || startswith(line, "#")) && continue
        words = split(line)
        if words[1] == "struct"
            @test (line, sizeof(STRUCTS[words[2]])) == (line, parse(Int, words[3]))
        elseif words[1] == "field"
            T = STRUCTS[words[2]]
            fields[words[2]] += 1
            index = findfirst(isequal(Symbol(words[3])), fieldnames(T))
            @test (line, index) == (line, fields[words[2]])
            @test (line, fieldoffset(T, index)) == (line, parse(Int, words[4]))
            @test (line, sizeof(fieldtype(T, index))) == (line, parse(Int, words[5]))
            @test (line, same_type(fieldtype(T, index), words[6])) == (line, true)
        elseif words[1] == "constant"
            constants += 1
            @test (line, enumerator_value(words[2])) == (line, parse(Int, words[3]))
        elseif words[1] == "function"
            functions += 1
            @test (line, Symbol(words[2]) in Negcos.FUNCTIONS) == (line, true)
        else
            error("unknown kind of line: $line")
        end
    end
    for (name, T) in STRUCTS
        @test (name, fields[name]) == (name, fieldcount(T))
    end
    @test constants == length(Negcos.STATUS) + length(Negcos.DTYPE) + sum(length, Negcos.ENUMERATORS)
    @test functions == length(Negcos.FUNCTIONS)
end

case("layout: every field of a struct is an argument") do
    optional(T) = setdiff(fieldnames(T), (:struct_size, :reserved))
    @test setdiff(optional(Negcos.COptions), Negcos.OPTIONS) == [:prefix_count, :prefix_dims, :prefix_weights]
    @test setdiff(optional(Negcos.CBatch), Negcos.INPUTS) == [:queries, :documents]
    numbers = keys(Negcos.Context(c -> Negcos.evaluate(c, ones(2, 2), ones(2, 2))))
    @test setdiff(optional(Negcos.CResult), numbers) == collect(Negcos.OUTPUTS)
end

case("layout: names of statuses, version, defaults") do
    for (name, code) in pairs(Negcos.STATUS)
        @test replace(Negcos.status_string(code), ' ' => '_') == String(name)
    end
    @test Negcos.status_string(99) == "unknown status"
    @test Negcos.library_version() >= Negcos.VERSION_OF_HEADER
    @test Negcos.defaults(Negcos.COptions).rounds == Negcos.DEFAULT_ROUNDS
end
