# SPDX-License-Identifier: Apache-2.0
module NegcosChainRulesCoreExt

using Negcos: Negcos, negative_cosine_loss
using ChainRulesCore: ChainRulesCore, AbstractZero, NoTangent, ZeroTangent, unthunk, @thunk

# The loss and all gradients in one call; the pullback multiplies.
function ChainRulesCore.rrule(
    ::typeof(negative_cosine_loss), context::Negcos.Context, queries::AbstractMatrix, documents::AbstractMatrix,
    differentiable::Union{AbstractMatrix,Real}...; arguments...,
)
    hard = any(x -> x isa AbstractMatrix, differentiable) ? (:grad_hard_negatives,) : ()
    outputs = (:grad_queries, :grad_documents, hard...)
    result = Negcos.evaluate(
        context, queries, documents; outputs = outputs, Negcos.named(differentiable...; arguments...)...)
    numbers = (result.grad_scale, result.grad_bias)[1:length(differentiable)-length(hard)]
    types = map(x -> typeof(float(x)), differentiable[length(hard)+1:end])

    function negative_cosine_loss_pullback(change)
        factor = unthunk(change)
        factor isa AbstractZero && return map(_ -> ZeroTangent(), (nothing, context, queries, documents, differentiable...))
        # In the element type of the matrix, whatever the type of the factor.
        of_matrix(gradient) = @thunk(convert.(eltype(gradient), factor .* gradient))
        return (
            NoTangent(), NoTangent(), map(name -> of_matrix(result[name]), outputs)...,
            map((T, gradient) -> T(factor * gradient), types, numbers)...,
        )
    end
    return result.loss, negative_cosine_loss_pullback
end

end
