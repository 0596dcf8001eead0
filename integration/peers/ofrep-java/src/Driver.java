import com.fasterxml.jackson.databind.JsonNode;
import com.google.common.collect.ImmutableList;
import com.google.common.collect.ImmutableMap;
import dev.openfeature.contrib.providers.ofrep.OfrepProvider;
import dev.openfeature.contrib.providers.ofrep.OfrepProviderOptions;
import dev.openfeature.sdk.Client;
import dev.openfeature.sdk.EvaluationContext;
import dev.openfeature.sdk.FlagEvaluationDetails;
import dev.openfeature.sdk.ImmutableContext;
import dev.openfeature.sdk.OpenFeatureAPI;
import dev.openfeature.sdk.Structure;
import dev.openfeature.sdk.Value;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A program that uses OpenFeature's OFREP provider for the JVM as a server would, for integration/peers.
 *
 * <pre>java Driver BASE_URL HEADERS [SECONDS]</pre>
 *
 * HEADERS is a JSON object. Its lines are those of integration/node/ofrep.mjs; what happens meanwhile is not seen. Ends when
 * standard input is closed, or after SECONDS (240).
 */
public final class Driver {
    public static void main(String[] arguments) throws Exception {
        ImmutableMap.Builder<String, ImmutableList<String>> headers = ImmutableMap.builder();
        Lines.JSON.readTree(arguments[1]).fields().forEachRemaining(
                header -> headers.put(header.getKey(), ImmutableList.of(header.getValue().asText())));
        OfrepProviderOptions options =
                OfrepProviderOptions.builder().baseUrl(arguments[0]).headers(headers.build()).build();
        OpenFeatureAPI.getInstance().setProviderAndWait(OfrepProvider.constructProvider(options));
        Client client = OpenFeatureAPI.getInstance().getClient();
        Lines.answer(arguments.length > 2 ? Long.parseLong(arguments[2]) : 240, question -> answer(client, question));
    }

    private static Map<String, Object> answer(Client client, JsonNode question) {
        EvaluationContext context = context(question.path("context"));
        Map<String, Object> answer = new LinkedHashMap<>(Map.of("seen", List.of()));
        if (question.has("key")) {
            answer.put("flag", flag(client, question.get("key").asText(), question.get("default"), context));
        } else if (question.has("keys")) {
            Map<String, Object> flags = new LinkedHashMap<>();
            question.get("keys").fields().forEachRemaining(
                    asked -> flags.put(asked.getKey(), flag(client, asked.getKey(), asked.getValue(), context)));
            answer.put("flags", flags);
        }
        return answer;
    }

    private static EvaluationContext context(JsonNode members) {
        Map<String, Value> attributes = new HashMap<>();
        members.fields().forEachRemaining(member -> attributes.put(member.getKey(), value(member.getValue())));
        Value targetingKey = attributes.remove("targetingKey");
        return targetingKey == null
                ? new ImmutableContext(attributes)
                : new ImmutableContext(targetingKey.asString(), attributes);
    }

    /** A flag by the type of its default. */
    private static Map<String, Object> flag(Client client, String key, JsonNode other, EvaluationContext context) {
        FlagEvaluationDetails<?> details;
        if (other.isBoolean()) {
            details = client.getBooleanDetails(key, other.asBoolean(), context);
        } else if (other.isTextual()) {
            details = client.getStringDetails(key, other.asText(), context);
        } else if (other.isInt()) {
            details = client.getIntegerDetails(key, other.asInt(), context);
        } else if (other.isNumber()) {
            details = client.getDoubleDetails(key, other.asDouble(), context);
        } else {
            details = client.getObjectDetails(key, value(other), context);
        }
        Object value = details.getValue();
        Map<String, Object> flag = new HashMap<>();
        flag.put("value", value instanceof Value given ? plain(given) : value);
        flag.put("reason", details.getReason());
        flag.put("variant", details.getVariant());
        flag.put("error", details.getErrorCode() == null ? null : details.getErrorCode().name());
        return flag;
    }

    private static Value value(JsonNode json) {
        return Value.objectToValue(Lines.JSON.convertValue(json, Object.class));
    }

    private static Object plain(Value value) {
        if (value.isStructure()) {
            Structure structure = value.asStructure();
            return structure.asObjectMap();
        }
        if (value.isList()) {
            return value.asList().stream().map(Driver::plain).toList();
        }
        return value.asObject();
    }
}
