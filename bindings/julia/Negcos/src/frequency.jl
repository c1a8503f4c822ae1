# SPDX-License-Identifier: Apache-2.0

"""
    Negcos.Frequency(; method = :streaming, hashes = 4, buckets = 2^20, learning_rate = 0.01, initial_gap = 0, seed = 0)
    Negcos.Frequency(path)              # what Negcos.save saved

How often is an item a candidate? Item ids in, one batch a training step, log Q out, for `log_probability` of
[`Negcos.evaluate!`](@ref), in memory that does not grow with the number of items:

    frequency = Negcos.Frequency()
    Negcos.update!(frequency, item_ids)                            # once a step
    log_q = Negcos.log_probability(frequency, item_ids)
    Negcos.evaluate(context, Q, D; log_probability = log_q)

`method` is `:streaming` (the probability that a batch has the item; follows changes) or `:count_min` (the item's share of
all ids so far). `docs/frequency.md` of negcos has the algorithms. One call at a time, as with
[`Negcos.Context`](@ref): others wait. `close` frees it, and so does the garbage collector.
"""
mutable struct Frequency <: Owner
    handle::Ptr{Cvoid}
    lock::ReentrantLock
    function Frequency(; arguments...)
        own = (:method, :hashes, :buckets, :learning_rate, :initial_gap, :seed)
        options = set_fields!(defaults(CFrequencyOptions), arguments, own, ())
        handle = Ref(C_NULL)
        check(ccall(functions[:negcos_frequency_create], Int32, (Ref{CFrequencyOptions}, Ref{Ptr{Cvoid}}), options, handle))
        return finalizer(destroy, new(handle[], ReentrantLock()))
    end
    function Frequency(path::AbstractString)
        handle = Ref(C_NULL)
        check(ccall(functions[:negcos_frequency_load], Int32, (Cstring, Ref{Ptr{Cvoid}}), path, handle))
        return finalizer(destroy, new(handle[], ReentrantLock()))
    end
end

function destroy(frequency::Frequency)
    ccall(functions[:negcos_frequency_destroy], Cvoid, (Ptr{Cvoid},), frequency.handle)
    frequency.handle = C_NULL
    return nothing
end

"""
    Negcos.update!(frequency, ids) -> frequency

Counts a batch: a `Vector{Int64}` of any ids. One call is one training step.
"""
function update!(frequency::Frequency, ids::AbstractVector)
    pointer = contiguous(:ids, ids, Int64, size(ids))
    exclusively(frequency) do handle
        GC.@preserve ids check(ccall(functions[:negcos_frequency_update], Int32, (Ptr{Cvoid}, Ptr{Int64}, Int64),
            handle, pointer, length(ids)))
    end
    return frequency
end

"""
    Negcos.log_probability!(log_q, frequency, ids) -> log_q

The natural logarithm of the estimate for each id, finite and at most 0, also for ids never seen. `ids` is a
`Vector{Int64}`, `log_q` a `Vector{Float64}` as long.
"""
function log_probability!(log_q::AbstractVector, frequency::Frequency, ids::AbstractVector)
    source = contiguous(:ids, ids, Int64, size(ids))
    target = contiguous(:log_q, log_q, Float64, size(ids))
    exclusively(frequency) do handle
        GC.@preserve ids log_q check(ccall(functions[:negcos_frequency_log_probability], Int32,
            (Ptr{Cvoid}, Ptr{Int64}, Int64, Ptr{Float64}), handle, source, length(ids), target))
    end
    return log_q
end

"""
    Negcos.log_probability(frequency, ids) -> Vector{Float64}

[`Negcos.log_probability!`](@ref) with an array of its own.
"""
log_probability(frequency::Frequency, ids::AbstractVector) =
    log_probability!(Vector{Float64}(undef, length(ids)), frequency, ids)

"""
    Negcos.save(frequency, path)

Saves everything, options included. Whatever interrupts it, at `path` is the old file or the new one.
"""
function save(frequency::Frequency, path::AbstractString)
    exclusively(frequency) do handle
        check(ccall(functions[:negcos_frequency_save], Int32, (Ptr{Cvoid}, Cstring), handle, path))
    end
    return nothing
end
